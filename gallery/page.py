"""The search page, for one person with a browser on this machine (or behind an ssh tunnel).

Photos are requested by their position in the index, never by path, and are decoded and written as a new JPEG, so that
no byte of a file that only claims to be an image reaches the browser. Nothing is loaded from other servers.
"""

import base64
import io
import logging
import re
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from flask import Flask, Response, render_template, request
from PIL import Image

from datasets.images.decode import ImageError, decode
from gallery.options import HOST, MOST_HITS, MOST_UPLOADED
from gallery.photos import printable
from gallery.searcher import PhotoHit, Searcher
from utils import UserError
from utils.device import available_cores

log = logging.getLogger("descry")

_THUMB = (320, 480)
_JPEG = {"Content-Type": "image/jpeg"}
_LOG_SECONDS = 10.0
"""between two lines about photos that cannot be shown"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def _guarded_app() -> Flask:
    """An application without routes that refuses foreign hosts and large uploads, and forbids foreign content."""
    app = Flask(__name__)
    app.config["TRUSTED_HOSTS"] = ["localhost", HOST]  # not a foreign name that resolves to this machine
    app.config["MAX_CONTENT_LENGTH"] = MOST_UPLOADED
    app.url_map.merge_slashes = False

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    return app


def create_app(searcher: Searcher, k: int) -> Flask:
    """The page as a WSGI application; it shows ``k`` photos unless a request says otherwise."""
    app = _guarded_app()
    app.jinja_env.filters["printable"] = printable
    opened = time.time_ns()
    always = {"k": k, "total": len(searcher), "most": MOST_HITS, "most_bytes": MOST_UPLOADED, "gone": (), "query": ""}

    def render(status: int = 200, **view: object) -> tuple[str, int]:
        return render_template("search.html", **{**always, **view}), status

    @app.route("/", methods=["GET", "POST"])
    def search() -> tuple[str, int]:
        values, start = request.values, time.perf_counter()
        view = {"query": values.get("q", ""), "k": values.get("k") or str(k)}
        try:
            view |= _answer(searcher, _number(view["k"], "number of photos", 1, MOST_HITS))
            view |= _changes(searcher, view.get("hits", ()), opened)
        except UserError as error:
            return render(400, **view, error=str(error))
        return render(**view, seconds=time.perf_counter() - start)

    @app.errorhandler(413)
    def too_large(error: Exception) -> tuple[str, int]:
        image = (request.content_length or 0) > MOST_UPLOADED
        return render(413, error="This image is larger than 32 MB" if image else "This request is too large")

    _add_photos(app, searcher)
    return app


def _changes(searcher: Searcher, hits: Sequence[PhotoHit], opened: int) -> dict[str, object]:
    """What to say about photos that are gone, or were written since the page was ``opened`` (ns)."""
    gone, changed = searcher.changes(hits, opened)
    if not gone and not changed:
        return {}
    if not searcher.gallery.is_dir():
        said = f"the folder {printable(str(searcher.gallery))} is not there any more"
    else:
        parts = {"gone": len(gone), "changed": len(changed)}
        said = " and ".join(f"{count} {what}" for what, count in parts.items() if count)
        said = f"of these photos, {said} since the search page was started"
    return {"gone": gone, "warning": f"{said}. Start search.py again to search what is there now"}


def _add_photos(app: Flask, searcher: Searcher) -> None:
    """The routes of photos and thumbnails, a few of which are decoded at once: a core remains for queries."""
    decoding, absences = threading.BoundedSemaphore(max(1, available_cores() - 1)), _Seldom()

    @app.get("/thumb/<int:position>")
    @lru_cache(maxsize=2000)
    def thumb(position: int) -> tuple[bytes, dict[str, str]]:
        with decoding:
            return _jpeg(decode(searcher.path(position)), _THUMB), _JPEG

    @app.get("/photo/<int:position>")
    def photo(position: int) -> tuple[bytes, dict[str, str]]:
        with decoding:
            return _jpeg(decode(searcher.path(position))), _JPEG

    @app.errorhandler(IndexError)
    @app.errorhandler(UserError)
    def absent(error: Exception) -> tuple[str, int]:
        absences.warn(f"search page: {error}")
        return "This photo cannot be shown.", 404


class _Seldom:
    """Warnings of which there may be thousands: one every few seconds, and how many were left out since."""

    def __init__(self) -> None:
        self._lock, self._next, self._left_out = threading.Lock(), 0.0, 0

    def warn(self, message: str) -> None:
        """Log a message, or count it."""
        with self._lock:
            if time.monotonic() < self._next:
                self._left_out += 1
                return
            more = f" (and {self._left_out} such lines before)" if self._left_out else ""
            self._next, self._left_out = time.monotonic() + _LOG_SECONDS, 0
        log.warning("%s%s", message, more)


def _answer(searcher: Searcher, k: int) -> dict[str, object]:
    """What the template needs to show the answer to the present request."""
    if request.method == "POST":
        return _by_upload(searcher, k)
    if "like" in request.args:
        position = _number(request.args["like"], "number of the photo", 0, len(searcher) - 1)
        return {"hits": searcher.by_photo(position, k), "like": position, "preview": f"/thumb/{position}"}
    if "q" not in request.args:
        return {}
    text = request.args["q"].strip()
    if not text:
        raise UserError("Describe the person first, for example: a woman in a red coat with a white handbag")
    return {"hits": searcher.by_text(text, k), "notice": searcher.encoder.truncation(text)}


def _by_upload(searcher: Searcher, k: int) -> dict[str, object]:
    upload = request.files.get("image")
    if upload is None or not upload.filename:
        raise UserError("Choose an image first")
    with tempfile.NamedTemporaryFile() as file:
        upload.save(file)
        file.flush()
        try:
            hits = searcher.by_image(Path(file.name), k)
            preview = base64.b64encode(_jpeg(decode(Path(file.name)), _THUMB)).decode()
        except ImageError as error:
            reason = str(error).removeprefix(f"{file.name}: ")
            raise UserError(f"{upload.filename} cannot be read: {reason}") from None
    return {"hits": hits, "upload": upload.filename, "preview": f"data:image/jpeg;base64,{preview}"}


def _number(text: str, name: str, low: int, high: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise UserError(f"The {name} must be a whole number from {low} to {high}")
    return int(text)


def _jpeg(image: Image.Image, fit: tuple[int, int] | None = None) -> bytes:
    if fit:
        image.thumbnail(fit, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85 if fit else 95)
    return file.getvalue()
