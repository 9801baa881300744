"""A picture of some drawn identities with their captions, for a README or a first look."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_TILE = (116, 290)
_GAP, _MARGIN, _LINE = 6, 26, 22
_INK, _PAPER, _CARD = (52, 56, 64), (244, 244, 241), (255, 255, 255)


def contact_sheet(
    folder: Path, annotation: str, target: Path, columns: int = 3, rows: int = 2, images: int = 3
) -> None:
    """Write a grid of identities, each with some images and a caption of the first of them.

    Args:
        folder: a drawn data set.
        annotation: its annotation file.
        target: a .jpg or .png file.
        columns: identities beside each other.
        rows: identities below each other.
        images: images of each identity; those with fewer are passed over.

    Raises:
        ValueError: the target cannot be written.
    """
    records = json.loads((folder / annotation).read_text(encoding="utf-8"))
    people = [list(group) for _, group in groupby(records, key=lambda record: record["id"])]
    people = [group[:images] for group in people if len(group) >= images][: columns * rows]
    if not people:
        raise ValueError(f"--contact_sheet {target}: no identity has {images} images; draw more images of each")
    font = ImageFont.load_default(16)
    width = images * _TILE[0] + (images - 1) * _GAP + 2 * _GAP
    captions = [_wrap(group[0]["captions"][0], font, width - 4 * _GAP) for group in people]
    height = _TILE[1] + 4 * _GAP + _LINE * max(len(lines) for lines in captions)
    used = -(-len(people) // columns)
    size = (_MARGIN + columns * (width + _MARGIN), _MARGIN + used * (height + _MARGIN))
    sheet = Image.new("RGB", size, _PAPER)
    for place, (group, lines) in enumerate(zip(people, captions, strict=True)):
        x = _MARGIN + place % columns * (width + _MARGIN)
        y = _MARGIN + place // columns * (height + _MARGIN)
        _card(sheet, (x, y), (width, height), folder, group, lines, font)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(target, quality=88)
    except (OSError, ValueError) as error:
        raise ValueError(f"--contact_sheet {target}: cannot be written ({error})") from None


def _card(
    sheet: Image.Image,
    place: tuple[int, int],
    size: tuple[int, int],
    folder: Path,
    group: list[dict[str, Any]],
    lines: list[str],
    font: ImageFont.FreeTypeFont,
) -> None:
    x, y = place
    draw = ImageDraw.Draw(sheet)
    draw.rounded_rectangle((x, y, x + size[0], y + size[1]), 8, fill=_CARD, outline=(222, 222, 218))
    for number, record in enumerate(group):
        path = folder / "imgs" / record.get("file_path", record.get("img_path"))
        left = x + _GAP + number * (_TILE[0] + _GAP)
        with Image.open(path) as image:
            sheet.paste(_fill(image), (left, y + _GAP))
    for number, line in enumerate(lines):
        draw.text((x + 2 * _GAP, y + _TILE[1] + 2 * _GAP + number * _LINE), line, fill=_INK, font=font)


def _fill(image: Image.Image) -> Image.Image:
    """The image at the tile's size, with what does not fit cut off evenly."""
    scale = max(_TILE[0] / image.width, _TILE[1] / image.height)
    grown = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (grown.width - _TILE[0]) // 2, (grown.height - _TILE[1]) // 2
    return grown.crop((left, top, left + _TILE[0], top + _TILE[1]))


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of at most this many pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
