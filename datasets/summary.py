"""What lies in a folder: which data sets, how large, how long their captions are, and what they look like."""

import statistics
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from datasets import DATASETS
from datasets.annotations import SPLITS
from datasets.contact_sheet import Row, Tile, draw_sheet
from datasets.images.verify import FileIndex
from datasets.mannequins import read_drawn
from datasets.records import Dataset, ImageRecord, counts
from utils import UserError
from utils.inputs import Tokenizer
from utils.tables import Table

ROWS, IMAGES = 6, 3
"""of a contact sheet: identities, and images of each"""


class Found(NamedTuple):
    """A data set that was recognised."""

    name: str
    root: Path
    """what ``--root_dir`` must be"""
    load: Callable[[], Dataset]


def recognise(root: Path) -> list[Found]:
    """The data sets below a folder; or else the folder itself, as one of them or as ``Custom``.

    Raises:
        UserError: there is no such folder, or nothing in it that could be a data set.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    folder = root.resolve()
    inside = [name for name in DATASETS if name != "Custom" and (root / name).is_dir()]
    if not inside and folder.name in DATASETS:
        root, inside = folder.parent, [folder.name]
    if inside:
        return [_found(name, root) for name in inside]
    if any(True for kind in ("*.json", "*.csv", "*.tsv") for _ in root.glob(kind)):
        return [_found("Custom", root)]
    names = ", ".join(name for name in DATASETS if name != "Custom")
    raise UserError(
        f"{root}: no data set here; expected a folder called {names}, or captions in a .json, .csv or .tsv, see "
        "docs/data.md"
    )


def _found(name: str, root: Path) -> Found:
    if name == "Mannequins":  # whatever it was drawn with
        return Found(name, root, lambda: read_drawn(root / name))
    return Found(name, root, lambda: DATASETS[name](root, lambda group: group()))


def describe(dataset: Dataset, tokenizer: Tokenizer, text_length: int) -> Table:
    """A row per split that has images; a caption is cut where it has more than ``text_length`` tokens."""
    files, rows = FileIndex(), []
    for split in SPLITS:
        if records := dataset.split(split):
            captions = [caption for record in records for caption in record.captions]
            lengths = [len(tokenizer.encode(caption)) + tokenizer.num_special for caption in captions]
            cut = sum(length > text_length for length in lengths) / len(lengths)
            missing = sum(record.path not in files for record in records)
            numbers = [*counts(records), missing, round(statistics.median(lengths)), max(lengths)]
            rows.append((split, *(f"{number:,}" for number in numbers), f"{cut:.1%}".replace("%", " %")))
    columns = ("identities", "images", "captions", "missing", "tokens, median", "longest", f"above {text_length}")
    return Table(("split", *columns), tuple(rows))


def contact_sheet(dataset: Dataset) -> Image.Image:
    """Some identities of the first split that has any, evenly from its whole length, with a caption of each."""
    records = next(found for split in SPLITS if (found := dataset.split(split)))

    def pid(record: ImageRecord) -> int:
        return record.pid

    people = [list(group) for _, group in groupby(sorted(records, key=pid), key=pid)]
    count = min(ROWS, len(people))
    chosen = [people[len(people) * number // count] for number in range(count)]
    rows = [Row(group[0].captions[0], [Tile(record.path) for record in group[:IMAGES]]) for group in chosen]
    return draw_sheet(rows, (116, 290), columns=IMAGES, across=min(3, count), caption_width=0)
