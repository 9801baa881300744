"""The files of a search: a contact sheet per query, one file with all hits, and vectors for other programs."""

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from datasets.images.decode import decode as decode_image
from gallery.index import IndexedPhotos
from gallery.photos import printable
from gallery.photos import printable as shown
from gallery.searcher import PhotoHit

Decode = Callable[[Path], Image.Image]
"""an image file to an upright RGB image; a ValueError if it cannot be read"""

_CELL, _PHOTO, _GAP, _MARGIN = 200, 300, 16, 32
_INK, _GREY, _PAPER, _FRAME = "#16191d", "#68707a", "#ffffff", "#eef0f3"


class Answer(NamedTuple):
    """A query with its hits."""

    text: str
    """the sentence, or the path of the image"""
    image: Path | None
    """the image, where the query is one"""
    hits: list[PhotoHit]


def write_answers(folder: Path, gallery: Path, answers: Sequence[Answer], total: int) -> list[Path]:
    """Write ``results.jsonl``, a line per hit, and a contact sheet per query.

    Args:
        folder: created if it does not exist.
        gallery: the folder of the photos.
        answers: what to write.
        total: number of photos searched.

    Returns:
        the contact sheets.

    Raises:
        ValueError: the folder cannot be written.
    """
    sheets = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "results.jsonl").open("w", encoding="utf-8") as file:
            for answer in answers:
                query = {"query" if answer.image is None else "image": answer.text}
                for rank, hit in enumerate(answer.hits, start=1):
                    line = {**query, "rank": rank, "score": round(hit.score, 6), "path": str(gallery / hit.name)}
                    file.write(json.dumps(line) + "\n")
        for number, answer in enumerate(answers, start=1):
            words = re.sub(r"[^\w]+", "_", answer.image.stem if answer.image else answer.text).strip("_")
            sheets.append(folder / f"{number:03d}_{printable(words)[:40]}.jpg")
            contact_sheet(answer, gallery, total, decode_image).save(sheets[-1], quality=90)
    except OSError as error:
        raise ValueError(f"--output {folder}: cannot be written ({error.strerror or error})") from None
    return sheets


def contact_sheet(answer: Answer, gallery: Path, total: int, decode: Decode) -> Image.Image:
    """The query, and its photos in order with rank, score and path."""
    columns = min(10, max(5, math.ceil(math.sqrt(len(answer.hits)))))
    width = 2 * _MARGIN + columns * (_CELL + _GAP) - _GAP
    left = _MARGIN + (_CELL // 2 + _GAP if answer.image else 0)
    title = _wrapped(shown(answer.text), _font(26, bold=True), width - left - _MARGIN, lines=3)
    head = max(len(title) * 34 + 34, _PHOTO // 2 if answer.image else 0) + _GAP
    cell_height = _PHOTO + 52
    height = 2 * _MARGIN + head + math.ceil(len(answer.hits) / columns) * (cell_height + _GAP) - _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if answer.image:
        _paste(sheet, (_MARGIN, _MARGIN), (_CELL // 2, _PHOTO // 2), answer.image, decode)
    for number, line in enumerate(title):
        draw.text((left, _MARGIN + number * 34), line, _INK, _font(26, bold=True))
    note = f"first {len(answer.hits)} of {total:,} photos in {shown(str(gallery))}"
    draw.text((left, _MARGIN + len(title) * 34 + 4), _elided(note, _font(15), width - left - _MARGIN), _GREY, _font(15))
    for number, hit in enumerate(answer.hits):
        row, column = divmod(number, columns)
        x, y = _MARGIN + column * (_CELL + _GAP), _MARGIN + head + row * (cell_height + _GAP)
        _paste(sheet, (x, y), (_CELL, _PHOTO), gallery / hit.name, decode)
        draw.text((x, y + _PHOTO + 6), f"{number + 1}", _INK, _font(17, bold=True))
        draw.text((x + _CELL, y + _PHOTO + 6), f"{hit.score:.3f}", _INK, _font(17), anchor="ra")
        draw.text((x, y + _PHOTO + 31), _elided(shown(hit.name), _font(13), _CELL), _GREY, _font(13))
    return sheet


def _paste(sheet: Image.Image, at: tuple[int, int], size: tuple[int, int], path: Path, decode: Decode) -> None:
    """A photo in the middle of a box; a word instead of one that has become unreadable."""
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((*at, at[0] + size[0] - 1, at[1] + size[1] - 1), fill=_FRAME)
    middle = (at[0] + size[0] // 2, at[1] + size[1] // 2)
    try:
        photo = ImageOps.contain(decode(path), size, Image.Resampling.LANCZOS)
    except ValueError:
        draw.text(middle, "unreadable", _GREY, _font(15), anchor="mm")
        return
    sheet.paste(photo, (middle[0] - photo.width // 2, middle[1] - photo.height // 2))


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which covers many scripts and comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """Words in lines of at most ``width`` pixels; the last line is cut if they are too many."""
    found: list[str] = []
    words = text.split()
    while words and len(found) < lines - 1:
        count = 1
        while count < len(words) and font.getlength(" ".join(words[: count + 1])) <= width:
            count += 1
        found.append(_elided(" ".join(words[:count]), font, width))
        words = words[count:]
    return [*found, _elided(" ".join(words), font, width)] if words else found


def _elided(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text without its middle, where it is too long; of a path both ends tell most."""
    if font.getlength(text) <= width:
        return text
    kept = min(len(text) - 1, width // 2)  # no letter is narrower than two pixels
    while kept > 1 and font.getlength(f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}") > width:
        kept -= 1
    return f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"


def export(folder: Path, photos: IndexedPhotos, about: dict[str, Any]) -> None:
    """Write the vectors for other programs: ``vectors.npy``, ``photos.jsonl`` (a line per row), ``about.json``.

    Raises:
        ValueError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", photos.vectors_ND)
        with (folder / "photos.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"row": row, "path": name}) + "\n" for row, name in enumerate(photos.names))
        (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--export {folder}: cannot be written ({error.strerror or error})") from None
