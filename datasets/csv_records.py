"""Captions in a table: a line per caption, with the columns image, caption and, if there are any, id and split.

``.csv`` is separated by commas, ``.tsv`` by tabs; fields may stand in double quotes. A line is numbered as an editor
does. The columns may have the names of the json form too: ``file_path``, ``img_path``, ``path`` for the image.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.annotations import Content, first_few
from datasets.records import DataError
from utils.files import WHOLE

COLUMNS = {
    "image": ("image", "file_path", "img_path", "path"),
    "caption": ("caption",),
    "id": ("id",),
    "split": ("split",),
}
"""what is read, and what its column may be called"""
NEEDED = ("image", "caption")


class CaptionLine(NamedTuple):
    """One line: an image and a sentence about it."""

    line: int
    """in the file, from 1 on"""
    image: str
    caption: str
    pid: int | None
    """None where the table has no column for it"""
    split: str | None


def read_captions(path: Path) -> list[CaptionLine]:
    """All lines of a table, in its order. What an image path, a caption or a split holds is not looked at.

    Raises:
        DataError: it cannot be read, lacks a column, or a line has too few or too many fields or an odd id.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            place = _places(path, next(reader, []))
            lines = [_line(path, reader.line_num, fields, place) for fields in reader if fields]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num}: {error}; double quotes inside a quoted field are written twice"
        ) from None
    if not lines:
        raise DataError(f"{path}: has no line below its titles")
    return lines


def _places(path: Path, titles: Sequence[str]) -> dict[str, int | None]:
    """The position of each of COLUMNS; None for one that is not there."""
    found = [title.strip().lower() for title in titles]
    place: dict[str, int | None] = {"all": len(found)}
    for name, spellings in COLUMNS.items():
        at = [number for number, title in enumerate(found) if title in spellings]
        if len(at) > 1:
            raise DataError(
                f"{path}: columns {', '.join(found[number] for number in at)} all mean the {name}; keep one"
            )
        if not at and name in NEEDED:
            separator = "tabs" if path.suffix.lower() == ".tsv" else "commas"
            raise DataError(
                f"{path}: no column {' or '.join(spellings)} in its first line, which is read as titles separated by "
                f"{separator}: {first_few(list(map(repr, titles)), ', ') or 'empty'}"
            )
        place[name] = at[0] if at else None
    return place


def _line(path: Path, number: int, fields: Sequence[str], place: dict[str, int | None]) -> CaptionLine:
    if len(fields) != place["all"]:
        raise DataError(
            f"{path}: line {number} has {len(fields)} fields, its titles are {place['all']}; put fields with a "
            "separator in them in double quotes"
        )
    value = {name: fields[at] if at is not None else None for name, at in place.items() if name != "all"}
    if value["id"] is not None and not re.fullmatch(WHOLE, value["id"].strip()):
        raise DataError(f"{path}: line {number}: id {value['id']!r}; ids are whole numbers")
    pid = None if value["id"] is None else int(value["id"])
    split = None if value["split"] is None else value["split"].strip()
    return CaptionLine(number, value["image"].strip(), value["caption"], pid, split)


def csv_content(path: Path) -> Content:
    """The lines of a table as records of the json form, one per image; without ids each image is a person of its own.

    Raises:
        DataError: as :func:`read_captions`; the splits are missing; lines of one image disagree on its id or split.
    """
    records: dict[str, dict] = {}
    first: dict[str, CaptionLine] = {}
    for line in read_captions(path):
        if line.split is None:
            raise DataError(f"{path}: no column split; add one that says train, val or test")
        before = first.setdefault(line.image, line)
        if (before.pid, before.split) != (line.pid, line.split):
            raise DataError(
                f"{path}: line {line.line} gives {line.image!r} id {line.pid} and split {line.split!r}, "
                f"line {before.line} id {before.pid} and split {before.split!r}; an image has one of each"
            )
        pid = len(records) if line.pid is None else line.pid
        record = {"id": pid, "split": line.split, "file_path": line.image, "captions": []}
        records.setdefault(line.image, record)["captions"].append(line.caption)
    lines = [line.line for line in first.values()]
    return Content(list(records.values()), lambda position: f"line {lines[position]}")
