"""Contact sheets: captions with their images, for papers, TensorBoard and the results of a search."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

from datasets.images.decode import decode
from utils import UserError

RIGHT, WRONG = (40, 150, 70), (205, 60, 50)
"""frames of images that match and that do not"""
_INK, _GREY, _PAPER, _EMPTY = "#16191d", "#68707a", "#ffffff", "#eef0f3"
_MARGIN, _GAP, _FRAME = 32, 11, 4
_LABEL, _SMALL, _LABEL_STEP = 16, 13, 23
_MOST_LINES = 10
"""of a caption above its images; beside them it is cut where they end"""


class Tile(NamedTuple):
    """An image of a sheet."""

    path: Path
    label: str = ""
    """lines below it, of which the first stands out"""
    right: bool | None = None
    """framed in green or red, or not at all"""


class Row(NamedTuple):
    """A caption and the images that belong to it."""

    caption: str
    tiles: Sequence[Tile]
    note: str = ""
    """a line in grey below the caption"""


def draw_sheet(
    rows: Sequence[Row],
    tile: tuple[int, int] = (84, 200),
    *,
    columns: int | None = None,
    across: int = 1,
    caption_width: int = 310,
    font_size: int = 15,
    crop: bool = True,
    decode: Callable[[Path], Image.Image] = decode,
) -> Image.Image:
    """Captions with their images; an image that cannot be read leaves a box that says so.

    Args:
        rows: at least one.
        tile: (width, height) in pixels of every image.
        columns: images beside each other; None for all of a row.
        across: rows beside each other.
        caption_width: pixels for captions to the left of the images; 0 puts them above.
        font_size: of the captions, in pixels.
        crop: fill the tile and cut off the rest of the image, instead of fitting all of it in.
        decode: a file to an upright RGB image; a ValueError if it cannot be read.
    """
    columns = columns or max(len(row.tiles) for row in rows)
    labels = max((tile.label.count("\n") + 1 for row in rows for tile in row.tiles if tile.label), default=0)
    step_x, step_y = tile[0] + _GAP, tile[1] + _GAP + labels * _LABEL_STEP
    images_width, images_height = columns * step_x - _GAP, max(-(-len(row.tiles) // columns) for row in rows) * step_y
    text_width, line_step, font = caption_width or images_width, round(font_size * 1.4), _font(font_size)
    most = max(1, tile[1] // line_step) if caption_width else _MOST_LINES
    captions = [_wrapped(row.caption, font, text_width, most) for row in rows]
    text_height = max(len(lines) + bool(row.note) for row, lines in zip(rows, captions, strict=True)) * line_step
    left, top = (caption_width + 2 * _GAP, 0) if caption_width else (0, text_height + _FRAME)
    width, height = left + images_width + _MARGIN, max(text_height, top + images_height - _GAP) + _MARGIN
    sheet = Image.new("RGB", (_MARGIN + across * width, _MARGIN - (-len(rows) // across) * height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (row, lines) in enumerate(zip(rows, captions, strict=True)):
        x, y = _MARGIN + number % across * width, _MARGIN + number // across * height
        y_text = y if caption_width else y + text_height - (len(lines) + bool(row.note)) * line_step
        for line_number, line in enumerate(lines):
            draw.text((x, y_text + line_number * line_step), line, _INK, font)
        note = _elided(row.note, _font(_LABEL), text_width)
        draw.text((x, y_text + len(lines) * line_step), note, _GREY, _font(_LABEL))
        for place, each in enumerate(row.tiles):
            at = (x + left + place % columns * step_x, y + top + place // columns * step_y)
            _draw_tile(sheet, at, tile, each, crop, decode)
    return sheet


def save_sheet(sheet: Image.Image, target: Path, flag: str) -> None:
    """Write a sheet as .jpg or .png, in a folder that is made if need be.

    Raises:
        UserError: it cannot be written; names the ``flag``.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(target, quality=88)
    except (OSError, ValueError) as error:
        raise UserError(f"{flag} {target}: cannot be written ({error})") from None


def _draw_tile(
    sheet: Image.Image,
    at: tuple[int, int],
    size: tuple[int, int],
    tile: Tile,
    crop: bool,
    decode: Callable[[Path], Image.Image],
) -> None:
    (x, y), (width, height), draw = at, size, ImageDraw.Draw(sheet)
    if tile.right is not None:
        frame = (x - _FRAME, y - _FRAME, x + width + _FRAME - 1, y + height + _FRAME - 1)
        draw.rectangle(frame, RIGHT if tile.right else WRONG)
    draw.rectangle((x, y, x + width - 1, y + height - 1), _EMPTY)
    try:
        image = (ImageOps.fit if crop else ImageOps.contain)(decode(tile.path), size, Image.Resampling.LANCZOS)
        sheet.paste(image, (x + (width - image.width) // 2, y + (height - image.height) // 2))
    except ValueError:
        font = _font(min(_SMALL, width // 6))
        draw.text((x + width // 2, y + height // 2), "unreadable", _GREY, font, anchor="mm")
    for number, line in enumerate(tile.label.split("\n")):
        font, colour = (_font(_SMALL), _GREY) if number else (_font(_LABEL), _INK)
        draw.text((x, y + height + _FRAME + number * _LABEL_STEP), _elided(line, font, width), colour, font)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which covers many scripts and comes with matplotlib."""
    import matplotlib  # takes long to import, and most runs draw no sheet

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """Words in lines of at most ``width`` pixels; the middle of the last line is left out if they are too many."""
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
