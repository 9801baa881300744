"""The search page: one person, in a browser on this machine (or through an ssh tunnel).

What is asked for is a position in the index, never a path; a photo is decoded and encoded anew, so that no byte of a
file that only calls itself an image reaches the browser. Nothing comes from another server.
"""

import base64
import io
import logging
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from gallery.results import Decode
from gallery.searcher import Searcher, shown
from utils.log import NEXT
from utils.options import opt

if TYPE_CHECKING:
    from flask import Flask, Request, Response

log = logging.getLogger("descry")

HOST = "127.0.0.1"
MOST = 500
"""photos on a page"""
_THUMB = (320, 480)
_UPLOAD_BYTES = 32 << 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class PageOptions:
    """Flags of the search page."""

    serve: bool = opt(False, f"open a search page on {HOST}")
    port: int = opt(7860, "port of the search page; 0 takes any that is free")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port {self.port}: expected 0 to 65535")


def require_packages() -> None:
    """Find out before the work that there is something to serve with.

    Raises:
        ValueError: names the command that installs it.
    """
    try:
        import flask  # noqa: F401
        import waitress  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--serve: needs the package {error.name}; pip install flask waitress") from None


def serve(app: "Flask", port: int) -> None:
    """Answer until Ctrl-C.

    Raises:
        ValueError: the port is taken.
    """
    import waitress

    try:
        server = waitress.create_server(app, host=HOST, port=port, max_request_body_size=_UPLOAD_BYTES, threads=8)
    except OSError as error:
        raise ValueError(f"--port {port}: {error.strerror}; choose another, or 0 for any that is free") from None
    log.info("search page: http://%s:%s/ (Ctrl-C ends it)", HOST, server.effective_port, extra=NEXT)
    server.run()


class RequestError(ValueError):
    """A request that cannot be answered, in words for the person who made it."""


def create_app(searcher: Searcher, decode: Decode, k: int) -> "Flask":
    """The page as a WSGI application.

    Args:
        searcher: finds photos.
        decode: an image file to an upright RGB image; a ValueError if it cannot be read.
        k: photos to show, unless the page says otherwise.
    """
    import flask

    app = flask.Flask(__name__)
    app.config["TRUSTED_HOSTS"] = ["localhost", HOST]  # or a foreign name that resolves to this machine
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = _UPLOAD_BYTES
    app.jinja_env.filters["shown"] = shown

    @lru_cache(maxsize=2000)
    def thumb(position: int) -> bytes:
        return _jpeg(decode(searcher.path(position)), _THUMB)

    @app.after_request
    def guard(response: "Response") -> "Response":
        response.headers.update(_HEADERS)
        return response

    @app.route("/", methods=["GET", "POST"])
    def search() -> tuple[str, int]:
        asked = flask.request.values
        view = {"query": asked.get("q", ""), "k": asked.get("k") or k, "total": len(searcher)}
        start = time.perf_counter()
        try:
            view |= _answer(searcher, flask.request, _number(view["k"], "number of photos", 1, MOST), decode)
        except RequestError as error:
            return flask.render_template("search.html", **view, error=str(error)), 400
        return flask.render_template("search.html", **view, seconds=time.perf_counter() - start), 200

    @app.get("/thumb/<int:position>")
    def small(position: int) -> "Response":
        return flask.Response(thumb(position), mimetype="image/jpeg")

    @app.get("/photo/<int:position>")
    def large(position: int) -> "Response":
        return flask.Response(_jpeg(decode(searcher.path(position)), None), mimetype="image/jpeg")

    @app.errorhandler(IndexError)
    @app.errorhandler(ValueError)
    def absent(error: Exception) -> tuple[str, int]:
        log.warning("search page: %s", error)
        return "This photo cannot be shown.", 404

    @app.errorhandler(413)
    def too_large(error: Exception) -> tuple[str, int]:
        view = {"query": "", "k": k, "total": len(searcher), "error": "This image is larger than 32 MB"}
        return flask.render_template("search.html", **view), 413

    return app


def _answer(searcher: Searcher, request: "Request", k: int, decode: Decode) -> dict[str, object]:
    """What the template needs to show the answer to a request."""
    if request.method == "POST":
        return _by_upload(searcher, request, k, decode)
    if "like" in request.args:
        position = _number(request.args["like"], "number of the photo", 0, len(searcher) - 1)
        return {"hits": searcher.by_photo(position, k), "like": position, "preview": f"/thumb/{position}"}
    if "q" not in request.args:
        return {}
    text = request.args["q"].strip()
    if not text:
        raise RequestError("Say what the person looks like, for instance: a woman in a red coat with a white handbag")
    return {"hits": searcher.by_texts([text], k)[0], "notice": searcher.features.cut(text)}


def _by_upload(searcher: Searcher, request: "Request", k: int, decode: Decode) -> dict[str, object]:
    upload = request.files.get("image")
    if upload is None or not upload.filename:
        raise RequestError("Choose an image first")
    with tempfile.NamedTemporaryFile() as file:
        upload.save(file)
        file.flush()
        try:
            hits = searcher.by_image(Path(file.name), k)
            preview = base64.b64encode(_jpeg(decode(Path(file.name)), _THUMB)).decode()
        except ValueError as error:
            reason = str(error).removeprefix(f"{file.name}: ")
            raise RequestError(f"{upload.filename} cannot be read: {reason}") from None
    return {"hits": hits, "upload": upload.filename, "preview": f"data:image/jpeg;base64,{preview}"}


def _number(text: str | int, name: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise RequestError(f"The {name} must be a whole number from {low} to {high}")
    return value


def _jpeg(image: Image.Image, fit: tuple[int, int] | None) -> bytes:
    if fit:
        image.thumbnail(fit, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85 if fit else 95)
    return file.getvalue()
