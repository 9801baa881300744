"""Contact sheets: where images, frames, captions and labels are."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from datasets.contact_sheet import RIGHT, WRONG, Row, Tile, _elided, _font, _wrapped, draw_sheet

COLOURS = {name: ImageColor.getrgb(name) for name in ("red", "lime", "blue")}
TILE = (40, 90)


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    for name, colour in COLOURS.items():
        Image.new("RGB", (50, 100), colour).save(tmp_path / f"{name}.png")
    return {name: tmp_path / f"{name}.png" for name in COLOURS}


def box(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what has this colour."""
    mask = (np.asarray(sheet) == colour).all(axis=-1)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def pixels(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def test_images_fill_their_tiles_in_order_within_frames(paths):
    tiles = [Tile(paths["red"], right=True), Tile(paths["lime"], right=False), Tile(paths["blue"])]
    sheet = draw_sheet([Row("a woman in red", tiles)], TILE)
    boxes = [box(sheet, colour) for colour in COLOURS.values()]
    assert [(right - left, bottom - top) for left, top, right, bottom in boxes] == [TILE] * 3
    assert boxes[0][2] < boxes[1][0] and boxes[1][2] < boxes[2][0]
    for colour, (left, top, right, bottom) in ((RIGHT, boxes[0]), (WRONG, boxes[1])):
        assert box(sheet, colour) == (left - 4, top - 4, right + 4, bottom + 4)
        assert pixels(sheet, colour) == (TILE[0] + 8) * (TILE[1] + 8) - TILE[0] * TILE[1]


def test_captions_stand_beside_or_above(paths):
    rows = [Row("a woman in a red coat " * 20, [Tile(paths["red"])]), Row("short", [Tile(paths["blue"])])]
    beside = draw_sheet(rows, TILE)
    left, top, _, bottom = box(beside, COLOURS["red"])
    assert bottom < box(beside, COLOURS["blue"])[1]
    ink = np.asarray(beside.convert("L")) < 100
    assert ink[top:bottom, : left - 4].any() and not ink[:top].any()
    above = draw_sheet(rows, TILE, across=2, caption_width=0)
    assert box(above, COLOURS["red"])[1] == box(above, COLOURS["blue"])[1]
    assert box(above, COLOURS["red"])[2] < box(above, COLOURS["blue"])[0]
    assert (np.asarray(above.convert("L"))[: box(above, COLOURS["red"])[1]] < 100).any()


def test_columns_and_labels(paths):
    tiles = [Tile(paths[name], f"{number}\n" + "long/" * 50) for number, name in enumerate(COLOURS)]
    sheet = draw_sheet([Row("", tiles)], TILE, columns=2)
    red, lime, blue = (box(sheet, colour) for colour in COLOURS.values())
    assert red[1] == lime[1] and red[0] == blue[0] and blue[1] > red[3] + 2 * 13
    ink = np.asarray(sheet.convert("L")) < 160
    labels = ink[red[3] : blue[1]]
    assert labels[:, red[0] : red[2]].any() and labels[:, lime[0] : lime[2]].any()
    assert not labels[:, red[2] + 1 : lime[0] - 1].any() and not labels[:, lime[2] + 1 :].any()
    bare = [tile._replace(label="") for tile in tiles]
    assert draw_sheet([Row("", bare)], TILE, columns=2).height < sheet.height


def test_whole_images(paths):
    Image.new("RGB", (100, 30), COLOURS["red"]).save(paths["red"])
    left, top, right, bottom = box(draw_sheet([Row("", [Tile(paths["red"])])], TILE, crop=False), COLOURS["red"])
    assert (right - left, bottom - top) == (40, 12)


@pytest.mark.parametrize("width", [30, 50, 84, 200])
def test_unreadable_images_say_so(paths, width):
    paths["lime"].write_bytes(b"no image")
    tiles = [Tile(paths["red"]), Tile(paths["lime"]), Tile(Path(os.fsdecode(b"caf\xe9.jpg"))), Tile(paths["blue"])]
    sheet = draw_sheet([Row("", tiles)], (width, 90))
    red, blue = box(sheet, COLOURS["red"]), box(sheet, COLOURS["blue"])
    ink = (np.asarray(sheet.convert("L")) < 180)[red[1] : red[3], red[2] + 1 : blue[0] - 1]
    gap = (blue[0] - red[2] - 2 * width) // 3
    for place in range(2):
        start = gap - 1 + place * (width + gap)
        assert ink[:, start : start + width].any()
    assert not ink[:, : gap - 1].any() and not ink[:, -(gap - 1) :].any()
    sizes = {draw_sheet([Row("", [Tile(paths[name])])], (width, 90)).size for name in ("red", "lime")}
    assert len(sizes) == 1


def test_no_images():
    empty = draw_sheet([Row("nothing", [], "first 0 of 0")], TILE, columns=5, caption_width=0)
    assert (np.asarray(empty.convert("L")) < 100).any()


def test_texts_fit_their_place():
    font = _font(13)
    for text in ("short", "a/very/long/path/" * 40 + "photo.jpg", "x" * 100_000):
        cut = _elided(text, font, 200)
        assert font.getlength(cut) <= 200 and cut[0] == text[0] and cut[-1] == text[-1]
    lines = _wrapped("a woman in a red coat " * 30, font, 200, 3)
    assert len(lines) == 3 and all(font.getlength(line) <= 200 for line in lines)
    short = "a woman in a red coat with a white handbag"
    assert " ".join(_wrapped(short, font, 200, 3)) == short
