"""The forms in which person images with captions are published: what a record of each looks like.

A new form is a :class:`Form` in ``FORMS``. Records come one at a time, so that a file may be larger than the memory.
"""

import csv
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from datasets.annotations import DataError
from datasets.records import relative_path
from datasets.shards import arrow
from datasets.shards.json_stream import json_elements, json_kind


class RecordError(Exception):
    """What is wrong with one record, in words."""


class Record(NamedTuple):
    """One image of an annotation, or one (image, caption) pair of it."""

    image: str
    """path below the folder of images"""
    captions: list[str]
    """as the file has them"""
    pid: int | str | None = None
    """identity, where the annotation has one"""
    split: str | None = None


@dataclass(frozen=True)
class Form:
    """How a form is recognised and read."""

    container: type | str
    """``dict`` or ``list`` for JSON, ``"table"`` for CSV and TSV, ``"arrow"``"""
    recognise: Callable[[Any], bool]
    """whether the first element is of this form"""
    read: Callable[[Any, Sequence[str]], Record]
    """an element, and the keys of its captions, to a record; raises KeyError, TypeError or RecordError"""
    caption_keys: tuple[str, ...] = ()
    """keys that may hold captions; the first is taken unless others are asked for"""
    joins: bool = False
    """whether one file may name an image more than once, each time with another caption"""


def read_records(form: Form, path: Path, caption_keys: Sequence[str]) -> Iterator[Record | RecordError]:
    """The records of an annotation file in their order; what is wrong with one comes in its place.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    for element in _elements(form.container, path):
        try:
            record = form.read(element, caption_keys or form.caption_keys[:1])
            image = relative_path(record.image)
            if image is None:
                raise RecordError(f"path {reprlib.repr(record.image)} is not one below the folder of images")
            if not all(isinstance(caption, str) for caption in record.captions):
                raise RecordError(f"captions {reprlib.repr(record.captions)} are not all texts")
            yield record._replace(image=image)
        except RecordError as error:
            yield error
        except KeyError as error:
            yield RecordError(f"has no {error.args[0]!r}: {reprlib.repr(element)}")
        except (TypeError, ValueError, AttributeError):
            yield RecordError(f"is {reprlib.repr(element)}")


def recognise(path: Path) -> str:
    """The name of the form that a file has.

    Raises:
        DataError: it has none of them, or has no record.
    """
    kind = _kind(path)
    names = [name for name, form in FORMS.items() if form.container == kind]
    first = next(_elements(kind, path), None) if kind else None
    if first is None:
        raise DataError(f"{path}: holds no record; expected JSON, CSV, TSV or Arrow")
    for name in names:
        if FORMS[name].recognise(first):
            return name
    raise DataError(
        f"{path}: of none of the known forms; the first record is {reprlib.repr(first)}. Write it as CSV with the "
        "columns path and caption, and give --form csv"
    )


def _kind(path: Path) -> type | str | None:
    if path.suffix.lower() in (".csv", ".tsv"):
        return "table"
    if arrow.is_arrow(path):
        return "arrow"
    return json_kind(path)


def _elements(container: type | str | None, path: Path) -> Iterator[Any]:
    if container == "table":
        yield from _table(path)
    elif container == "arrow":
        yield from arrow.rows(path)
    else:
        yield from json_elements(path)


def _table(path: Path) -> Iterator[dict[str, str]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, delimiter=delimiter, strict=True):
                yield {(key or "").strip().lower(): value for key, value in row.items()}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of UTF-8 text ({error})") from None


def _has(*keys: str, without: tuple[str, ...] = ()) -> Callable[[Any], bool]:
    return lambda first: (
        isinstance(first, dict) and all(k in first for k in keys) and not any(k in first for k in without)
    )


def _is_webperson(first: Any) -> bool:
    return isinstance(first, dict) and len(first) == 1 and all(isinstance(value, dict) for value in first.values())


def _pair_of(kind: type) -> Callable[[Any], bool]:
    return lambda first: isinstance(first, tuple) and isinstance(first[1], kind)


def _luperson_mllm(pair: tuple[str, str], keys: Sequence[str]) -> Record:
    path, caption = pair
    return Record(PurePosixPath(path).name, [caption])  # one flat folder: the base name is the key


def _ham(pair: tuple[str, list[str]], keys: Sequence[str]) -> Record:
    path, captions = pair
    return Record(path, [*_list(captions, "captions")])


def _webperson(element: dict[str, dict[str, str]], keys: Sequence[str]) -> Record:
    ((path, captions),) = element.items()
    return Record(path, [captions[key].replace("/n", " ") for key in sorted(captions) if key.startswith("caption")])


def _one_caption(element: dict[str, Any], keys: Sequence[str]) -> Record:
    return Record(element["image"], [element[key] for key in keys])


def _captions(element: dict[str, Any], keys: Sequence[str]) -> Record:
    """``file_path`` or ``img_path``; captions are lists, or lines of one text (``mllm_captions``)."""
    path = element["img_path"] if "file_path" not in element and "img_path" in element else element["file_path"]
    found: list[str] = []
    for key in keys:
        captions = element[key]
        found += captions.splitlines() if isinstance(captions, str) else _list(captions, key)
    return Record(path, found, _pid(element.get("id")), element.get("split"))


def _synth_pedes(element: dict[str, Any], keys: Sequence[str]) -> Record:
    _pid(element["id"])
    return _captions(element, keys)


def _luperson_t(row: dict[str, Any], keys: Sequence[str]) -> Record:
    captions = row["caption"]
    return Record(
        row["image"], [captions] if isinstance(captions, str) else _list(captions, "caption"), None, row["split"]
    )


_COLUMNS = {"path": ("path", "file_path", "img_path", "image", "filepath"), "caption": ("caption", "text", "title")}


def _csv(row: dict[str, str], keys: Sequence[str]) -> Record:
    path, caption = (_column(row, name) for name in ("path", "caption"))
    pid = (row.get("id") or "").strip()
    return Record(path.strip(), [caption], int(pid) if pid.isdecimal() else pid or None, row.get("split") or None)


def _column(row: Mapping[str, str | None], name: str) -> str:
    for key in _COLUMNS[name]:
        if key in row:
            value = row[key]
            if value is None:
                raise RecordError("has fewer cells than the first line")
            return value
    raise RecordError(f"has no column {name} (or {', '.join(_COLUMNS[name][1:])})")


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise RecordError(f"{key} {reprlib.repr(value)} are not a list")
    return value


def _pid(value: Any) -> int | str | None:
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise RecordError(f"id {reprlib.repr(value)} is neither a whole number nor a text")


FORMS: dict[str, Form] = {
    "luperson-mllm": Form(dict, _pair_of(str), _luperson_mllm),
    "ham": Form(dict, _pair_of(list), _ham),
    "webperson": Form(list, _is_webperson, _webperson),
    "sda": Form(list, _has("image", "caption", "phrases"), _one_caption, ("caption",)),
    "mals": Form(list, _has("image", "caption", without=("phrases",)), _one_caption, ("caption",)),
    "synth-pedes": Form(list, _has("id", "file_path", "prompt_caption"), _synth_pedes, ("captions", "prompt_caption")),
    "reid-raw": Form(
        list,
        _has("id", "split", "captions"),
        _captions,
        ("captions", "captions_bt", "mllm_captions", "diversity_captions"),
    ),
    "largefine": Form(
        list, _has("file_path", "captions", without=("split", "prompt_caption")), _captions, ("captions",)
    ),
    "luperson-t": Form("arrow", _has("image", "caption"), _luperson_t),
    "csv": Form("table", lambda first: isinstance(first, dict), _csv, joins=True),
}
"""value of ``--form`` to how it is read; ``auto`` takes the first that recognises the file"""
