"""IIITD-20K (2023): 20,000 people with one photo each, described twice.

Two forms are read. ``Filtered.json`` is a dict of entries with an image and two descriptions, and the order of its
entries divides them: 15,000 train, 2,500 val, the rest test. The other is a list like that of the other data sets, with
a record per caption.
"""

from pathlib import Path
from typing import Any

from datasets.annotations import Content, json_list, read
from datasets.folders import annotation_in, images_in
from datasets.json_file import load_json
from datasets.records import DataError, Dataset
from utils.options import GetOptions

NAME = "IIITD-20K"
PUBLISHED = {"train": (15000, 15000, 30000), "val": (2500, 2500, 5000), "test": (2500, 2500, 5000)}
ENDS = {"train": 15000, "val": 17500}
"""entries of the dict up to which a split reaches"""
_KEYS = ("Image ID", "Description 1", "Description 2")


def load(root: Path, _: GetOptions) -> Dataset:
    """Read ``root/IIITD-20K/Filtered.json``, or the only json there. Raises DataError."""
    folder = root / NAME
    names = (annotation_in(folder, "Filtered.json"),)
    locate = images_in(folder, ("imgs", "images", "."), ("", ".jpeg", ".jpg"))
    return read(folder, NAME, names, first_train_id=None, published=PUBLISHED, locate=locate, load=_content)


def _content(path: Path) -> Content:
    content = load_json(path)
    return _from_dict(path, content) if isinstance(content, dict) else _joined(json_list(path))


def _from_dict(path: Path, content: dict[str, Any]) -> Content:
    """Entries ``{"Image ID", "Description 1", "Description 2"}`` in the order of the file."""
    records = []
    for number, (key, entry) in enumerate(content.items()):
        if not isinstance(entry, dict) or not all(name in entry for name in _KEYS):
            raise DataError(f"{path}: entry {key!r} has not the keys {', '.join(_KEYS)}; fetch the file again")
        split = next((split for split, end in ENDS.items() if number < end), "test")
        image, *captions = (entry[name] for name in _KEYS)
        image = str(image) if isinstance(image, int) else image
        records.append({"id": number, "split": split, "file_path": image, "captions": captions})
    if not records:
        raise DataError(f"{path}: there is no entry in it")
    keys = list(content)
    return Content(records, lambda position: f"entry {keys[position]!r}")


def _joined(content: Content) -> Content:
    """Records of the same image, id and split as one, with the captions of all; others are left for the checks."""
    records: dict[Any, Any] = {}
    positions = []
    for position, record in enumerate(content.records):
        key = position
        if isinstance(record, dict) and isinstance(record.get("captions"), list):
            key = repr([record.get(name) for name in ("file_path", "id", "split")])
        if key in records:
            records[key]["captions"] += record["captions"]
        else:
            records[key] = {**record, "captions": list(record["captions"])} if isinstance(key, str) else record
            positions.append(position)
    return Content(list(records.values()), lambda number: f"record {positions[number]}")
