"""A picture of what queries found, for papers and TensorBoard: captions on the left, images with frames beside them."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

RIGHT, WRONG = (40, 150, 70), (205, 60, 50)
"""frames of images that match and that do not"""
_INK, _PAPER = (40, 40, 45), (255, 255, 255)
_GAP, _FRAME = 10, 4


class Row(NamedTuple):
    """A query and the images it found, nearest first."""

    caption: str
    images: tuple[tuple[Image.Image, bool], ...]
    """upright RGB, and whether it matches"""


def draw_sheet(rows: Sequence[Row], tile: tuple[int, int] = (84, 200), text_width: int = 330) -> Image.Image:
    """Rows below each other.

    Args:
        rows: at least one.
        tile: (width, height) in pixels that every image is fitted into.
        text_width: pixels for the captions.
    """
    width, height = tile
    most = max(len(row.images) for row in rows)
    step = height + 2 * _GAP
    sheet = Image.new("RGB", (text_width + most * (width + _GAP) + _GAP, len(rows) * step), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for number, row in enumerate(rows):
        top = number * step + _GAP
        text = textwrap.fill(row.caption, width=max(1, text_width // 9), max_lines=height // 24, placeholder=" ...")
        draw.text((2 * _GAP, top + _FRAME), text, fill=_INK, font=font, spacing=6)
        for column, (image, right) in enumerate(row.images):
            left = text_width + column * (width + _GAP)
            frame = (left - _FRAME, top - _FRAME, left + width + _FRAME - 1, top + height + _FRAME - 1)
            draw.rectangle(frame, fill=RIGHT if right else WRONG)
            sheet.paste(fitted(image, tile), (left, top))
    return sheet


def fitted(image: Image.Image, tile: tuple[int, int]) -> Image.Image:
    """An image scaled to fill (width, height) pixels; what hangs over on two sides is cut off."""
    return ImageOps.fit(image, tile, Image.Resampling.LANCZOS)
