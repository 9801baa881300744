"""What nearly all annotation files hold: records ``{id, captions, split, file_path | img_path}``, in a JSON list.

``read`` turns them into a data set and answers every fault with one ``DataError`` that names the file, the first
records concerned, how many there are, and the remedy. Positions of records count from 0. Images are not touched here.
Forms that hold the same in another way are turned into such records first.
"""

import logging
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from datasets.json_file import load_json
from datasets.records import DataError, Dataset, ImageRecord, counts, relative_path

logger = logging.getLogger("descry")

SPLITS = ("train", "val", "test")
Counts = tuple[int | None, int | None, int | None]
"""identities, images, captions; None: not known"""
_SHOWN = 5
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_REMEDIES = {
    "not an object": "Each record is {id, captions, split, file_path}.",
    "without a key that is needed": "Add it; each record is {id, captions, split, file_path}.",
    "with an id that is not a whole number": 'Write ids as JSON integers, 17 and not "17".',
    "with an unknown split": "The split is train, val or test.",
    "with an image path that is not usable": "Write it relative to the image folder, as a/b.jpg, without '..'.",
    "with captions that are not a list of texts": 'Write captions as ["first", "second"].',
    "without captions": "Add a caption or remove the record.",
    "with an empty caption": "Remove the caption, or the record if it has no other.",
    "with a caption that is not valid Unicode": "Remove the lone surrogate (\\ud800 to \\udfff).",
    "with back translations that are not a list of texts": 'Write captions_bt as ["first", "second"].',
    "with more or fewer back translations than captions": 'Give one for each caption, "" where there is none.',
    "naming an image that an earlier record has in another split": "Keep the image in one split.",
    "naming an image that an earlier record names": "Join the records; all captions of an image belong in one.",
}


class Content(NamedTuple):
    """What an annotation file holds."""

    records: Sequence[Any]
    """expected to be ``{id, captions, split, file_path}``"""
    label: Callable[[int], str] = "record {}".format
    """what a message calls the record at a position"""


def json_list(path: Path) -> Content:
    """The records of a JSON list. Raises DataError."""
    content = load_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of records, found a JSON {type(content).__name__}")
    if not content:
        raise DataError(f"{path}: the list of records is empty")
    return Content(content)


class _RecordError(Exception):
    """What is wrong with one record: a key of ``_REMEDIES`` and the detail."""


class _Row(NamedTuple):
    """One checked record, its id as the file has it."""

    pid: int
    split: str
    image: str
    captions: tuple[str, ...]
    back_translations: tuple[str, ...]


def read(
    folder: Path,
    name: str,
    annotation_names: Sequence[str],
    *,
    image_keys: Sequence[str] = ("file_path",),
    first_train_id: int | None = 0,
    published: Mapping[str, Counts] | None = None,
    leaks_are_errors: bool = True,
    locate: Callable[[str], Path] | None = None,
    load: Callable[[Path], Content] = json_list,
) -> Dataset:
    """Read a data set from its annotation file.

    Args:
        folder: the data set's own folder.
        name: what the data set is called in messages.
        annotation_names: the file's name; the first that exists is taken.
        image_keys: keys that may hold the image's path; the first that a record has is taken.
        first_train_id: the id that training identities start from in the file; they become 0..n-1, and a gap is an
            error. None: any ids, renumbered 0..n-1 in ascending order.
        published: (identities, images, captions) by split, and of all splits together as ``all``; None stands for a
            number that is not known. A difference is logged as a warning.
        leaks_are_errors: whether an identity or an image in two splits is refused, as in a benchmark; otherwise
            ``Dataset.leaks`` says so.
        locate: from the path in the file to the image's path; default ``folder/imgs/...``.
        load: reads a file of another form.

    Raises:
        DataError: the file is missing, unreadable or faulty.
    """
    path = _find(folder, name, annotation_names)
    rows = _check_all(path, load(path), image_keys, leaks_are_errors)
    new_id = _train_ids(path, sorted({row.pid for row in rows if row.split == "train"}), first_train_id)
    locate = locate or (folder / "imgs").joinpath
    splits: dict[str, list[ImageRecord]] = {split: [] for split in SPLITS}
    for row in rows:
        records = splits[row.split]
        pid = new_id[row.pid] if row.split == "train" else row.pid
        records.append(ImageRecord(pid, len(records), locate(row.image), row.captions, row.back_translations))
    leaks, ambiguous = _shared_identities({split: {row.pid for row in rows if row.split == split} for split in SPLITS})
    leaks += _shared_images(splits)
    if leaks and leaks_are_errors:
        remedy = "restore the published file, or read the folder with --dataset_name Custom, which only warns"
        raise DataError(f"{path}: {'; '.join(leaks)}. Results would not be comparable: {remedy}")
    dataset = Dataset(name, *(tuple(splits[split]) for split in SPLITS), annotation=path, leaks=(*leaks, *ambiguous))
    if published:
        _compare(dataset, published)
    return dataset


def _shared_identities(ids: Mapping[str, set[int]]) -> tuple[list[str], list[str]]:
    """Identities in two splits: where some of a split are, and where all are.

    The latter need not be a leak: a file may number the identities of each split from 0 on.
    """
    some, every = [], []
    for one, other in combinations(SPLITS, 2):
        if both := sorted(ids[one] & ids[other]):
            shown = f"{one} and in {other} ({first_few(list(map(str, both)), ', ')})"
            if len(both) < min(len(ids[one]), len(ids[other])):
                some.append(f"{_count(both, 'identity is', 'identities are')} in {shown}")
            else:
                every.append(f"the same {len(both)} identities are in {shown}, unless each split has its own numbers")
    return some, every


def _shared_images(splits: Mapping[str, Sequence[ImageRecord]]) -> list[str]:
    paths = {split: {record.path for record in splits[split]} for split in SPLITS}
    return [
        f"{_count(both, 'image is', 'images are')} in {one} and in {other} ({first_few(both, ', ')})"
        for one, other in combinations(SPLITS, 2)
        if (both := sorted(map(str, paths[one] & paths[other])))
    ]


def _count(items: Sequence[object], one: str, more: str) -> str:
    return f"{len(items)} {one if len(items) == 1 else more}"


def _find(folder: Path, name: str, annotation_names: Sequence[str]) -> Path:
    for candidate in annotation_names:
        if (folder / candidate).is_file():
            return folder / candidate
    wanted = " or ".join(annotation_names)
    found = f"that folder has no {wanted}" if folder.is_dir() else "there is no such folder"
    raise DataError(f"{folder}: {found}; --root_dir must point to where {name} is, see docs/data.md")


def _check_all(path: Path, content: Content, image_keys: Sequence[str], leaks_are_errors: bool) -> list[_Row]:
    rows: list[_Row] = []
    faults: dict[str, list[str]] = {}
    seen: dict[str, tuple[int, str]] = {}
    for position, record in enumerate(content.records):
        try:
            row = _check(record, image_keys)
            first, split = seen.setdefault(row.image, (position, row.split))
            if split != row.split and leaks_are_errors:
                where = f"{row.image!r} is in {row.split}, and in {split} as {content.label(first)}"
                raise _RecordError("naming an image that an earlier record has in another split", where)
            if first != position and split == row.split:
                where = f"{row.image!r} as {content.label(first)}"
                raise _RecordError("naming an image that an earlier record names", where)
            rows.append(row)
        except _RecordError as error:
            kind, detail = error.args
            faults.setdefault(kind, []).append(f"{content.label(position)}: {detail}")
    if faults:
        kind, details = next(iter(faults.items()))
        rest = [f"{len(others)} {other}" for other, others in faults.items() if other != kind]
        also = f" Further records: {'; '.join(rest)}." if rest else ""
        plural = "records" if len(details) > 1 else "record"
        raise DataError(f"{path}: {len(details)} {plural} {kind}: {first_few(details)}. {_REMEDIES[kind]}{also}")
    return rows


def _check(record: Any, image_keys: Sequence[str]) -> _Row:
    if not isinstance(record, dict):
        raise _RecordError("not an object", reprlib.repr(record))
    image_key = next((key for key in image_keys if key in record), image_keys[0])
    for key in ("id", "split", "captions", image_key):
        if key not in record:
            raise _RecordError(
                "without a key that is needed", f"no {' or '.join(image_keys)}" if key == image_key else key
            )
    pid, split, image = record["id"], record["split"], record[image_key]
    if not isinstance(pid, int) or isinstance(pid, bool) or not -(2**63) <= pid < 2**63:
        raise _RecordError("with an id that is not a whole number", f"id {reprlib.repr(pid)}")
    if split not in SPLITS:
        raise _RecordError("with an unknown split", f"split {reprlib.repr(split)}")
    captions = _check_captions(record["captions"])
    translations = _check_back_translations(record.get("captions_bt"), len(captions))
    return _Row(pid, split, _check_path(image_key, image), captions, translations)


def _check_path(key: str, image: Any) -> str:
    path = relative_path(image)
    if path is None:
        raise _RecordError("with an image path that is not usable", f"{key} {reprlib.repr(image)}")
    return path


def _check_captions(captions: Any) -> tuple[str, ...]:
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise _RecordError("with captions that are not a list of texts", f"captions {reprlib.repr(captions)}")
    if not captions:
        raise _RecordError("without captions", "captions []")
    stripped = tuple(caption.strip() for caption in captions)
    if not all(stripped):
        raise _RecordError("with an empty caption", f"caption {stripped.index('')}")
    for number, caption in enumerate(stripped):
        if _SURROGATE.search(caption):
            raise _RecordError("with a caption that is not valid Unicode", f"caption {number}, {reprlib.repr(caption)}")
    return stripped


def _check_back_translations(texts: Any, captions: int) -> tuple[str, ...]:
    if texts is None or texts == []:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _RecordError("with back translations that are not a list of texts", f"captions_bt {reprlib.repr(texts)}")
    if len(texts) != captions:
        raise _RecordError(
            "with more or fewer back translations than captions", f"{len(texts)} captions_bt, {captions} captions"
        )
    return tuple(text.strip() for text in texts)


def _train_ids(path: Path, ids: Sequence[int], first: int | None) -> dict[int, int]:
    """From the ids in the file, ascending, to 0..n-1."""
    if first is not None:
        expected = range(first, first + len(ids))
        if missing := [str(pid) for pid in sorted(set(expected) - set(ids))]:
            beyond = [str(pid) for pid in ids if pid not in expected]
            raise DataError(
                f"{path}: the {len(ids)} training ids must run {first}..{expected[-1]} without a gap; "
                f"missing: {first_few(missing)}; outside that range: {first_few(beyond)}. "
                "Renumber them, or read the folder with --dataset_name Custom, which takes any ids"
            )
    return {pid: number for number, pid in enumerate(ids)}


def _compare(dataset: Dataset, published: Mapping[str, Counts]) -> None:
    names = ("identities", "images", "captions")
    found = {split: counts(dataset.split(split)) for split in SPLITS}
    found["all"] = tuple(map(sum, zip(*found.values(), strict=True)))
    expected = {split: published.get(split, (0, 0, 0)) for split in SPLITS}
    if "all" in published:
        expected["all"] = published["all"]
    differences = [
        f"{'the whole' if split == 'all' else split} has {has} {what}, published {should}"
        for split, numbers in expected.items()
        for what, has, should in zip(names, found[split], numbers, strict=True)
        if should is not None and has != should
    ]
    if differences:
        logger.warning(
            "%s differs from the published data set: %s. Results are not comparable with published ones.",
            dataset.name,
            "; ".join(differences),
        )


def first_few(items: Sequence[str], separator: str = "; ") -> str:
    """The first five of a list for a message, and how many more there are."""
    more = f"{separator}and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more
