"""What an import will write: the records of all annotation files, joined by image and divided into shards.

Records are put into buckets by a hash of their image's path, so that all captions of an image meet in one bucket,
which fits into memory, however large the files are; and so that every shard is a random part of the whole.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from datasets.annotations import DataError
from datasets.parallel import run_chunks
from datasets.shards.cleaning import LeftOut, clean
from datasets.shards.forms import FORMS, RecordError, read_records, recognise
from utils.files import replacing, write_text
from utils.log import hide_bar

_BUCKET_BYTES, _MOST_BUCKETS = 8 << 20, 256


@dataclass(frozen=True)
class ImportOptions:
    """What is imported, and how; another import into the same folder must agree in everything."""

    form: str
    annotation: tuple[Path, ...]
    images: Path | None
    split: str = "train"
    """records of other splits are left out; those without one are not"""
    caption_keys: tuple[str, ...] = ()
    bad_records: str = "error"
    resize: tuple[int, int] | None = None
    quality: int = 95
    shard_size: int = 5000
    """most images in a shard"""
    exclude_like: tuple[Path, ...] = ()

    def described(self) -> dict[str, Any]:
        """The flags and what they stand for: of annotation files the size and the time, too."""
        files = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in self.annotation]
        return {
            "form": self.form,
            "annotation": files,
            "images": self.images and str(self.images.resolve()),
            "split": self.split,
            "caption_keys": [*self.caption_keys],
            "bad_records": self.bad_records,
            "resize": self.resize and [*self.resize],
            "quality": self.quality,
            "shard_size": self.shard_size,
            "exclude_like": [str(path.resolve()) for path in self.exclude_like],
        }


class PlannedShard(NamedTuple):
    """The records of a shard: lines of a bucket."""

    bucket: Path
    start: int
    stop: int

    def records(self) -> Iterator[tuple[str, str, list[str], int | str | None]]:
        """Key, image, captions and identity of every record."""
        with self.bucket.open(encoding="utf-8") as file:
            for line in islice(file, self.start, self.stop):
                yield tuple(json.loads(line))


def make_plan(options: ImportOptions, folder: Path, workers: int) -> list[PlannedShard]:
    """Read all annotations and write the plan into ``folder``; one that is there and complete is taken as it is.

    Raises:
        DataError: a file is not of its form, a record is faulty or there twice, or nothing is left.
    """
    done = folder / "plan.json"
    if not done.exists():
        folder.mkdir(exist_ok=True)
        buckets = _fill_buckets(options, folder)
        settled = functools.partial(_settle, options=options)
        counts = dict(
            pair
            for found in run_chunks(settled, [[path] for path in buckets], workers, "joining captions", "part")
            for pair in found
        )
        shards = [
            shard for path in buckets for shard in _divide(path.with_suffix(".json"), counts[path], options.shard_size)
        ]
        if not shards:
            left_out = Counter(fault.reason for fault in planned_faults(folder))
            shown = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
            raise DataError(f"{_names(options.annotation)}: no image is left ({shown or 'there is none'})")
        write_text(done, json.dumps([[shard.bucket.name, shard.start, shard.stop] for shard in shards]))
    return [PlannedShard(folder / name, start, stop) for name, start, stop in json.loads(done.read_text())]


def planned_faults(folder: Path) -> Iterator[LeftOut]:
    """What planning has left out."""
    for path in sorted(folder.glob("*.left_out")):
        with path.open(encoding="utf-8") as file:
            yield from (LeftOut(*json.loads(line)) for line in file)


def form_of(path: Path, form: str) -> str:
    """The form of an annotation file: the one that was named, or the one that it has.

    Raises:
        DataError: the file has another form than the named one; says which.
    """
    if form == "auto":
        return recognise(path)
    first = next(read_records(FORMS[form], path, ()), None)
    if first is None or isinstance(first, RecordError):
        reason = f"its first record {first}" if first else "it holds no record"
        found = recognise(path)
        hint = f"it looks like --form {found}" if found != form else "see docs/pretraining.md for the forms"
        raise DataError(f"--form {form}: {path} does not have it: {reason}; {hint}")
    return form


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _fill_buckets(options: ImportOptions, folder: Path) -> list[Path]:
    total = sum(path.stat().st_size for path in options.annotation)
    number = max(1, min(total // _BUCKET_BYTES, _MOST_BUCKETS))
    buckets = [folder / f"{bucket:03d}.raw" for bucket in range(number)]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in buckets]
        left_out = stack.enter_context((folder / "read.left_out").open("w", encoding="utf-8"))
        bar = stack.enter_context(tqdm(desc="reading annotations", unit="record", disable=hide_bar()))
        for source, path in enumerate(options.annotation):
            form = FORMS[form_of(path, options.form)]
            _check_keys(form_of(path, options.form), options.caption_keys)
            for position, record in enumerate(read_records(form, path, options.caption_keys)):
                bar.update()
                if isinstance(record, RecordError):
                    if options.bad_records == "error":
                        raise DataError(f"{path}: record {position} {record}; mend it, or give --bad_records skip")
                    left_out.write(
                        json.dumps(LeftOut(f"{path.name}, record {position}", "bad record", str(record))) + "\n"
                    )
                elif record.split is not None and record.split != options.split:
                    left_out.write(json.dumps(LeftOut(record.image, "other split", record.split)) + "\n")
                else:
                    digest = hashlib.blake2b(record.image.encode(), digest_size=10).digest()
                    row = (digest.hex(), source, position, form.joins, *record[:3])
                    files[int.from_bytes(digest[:4]) * number >> 32].write(json.dumps(row) + "\n")
    return buckets


def _check_keys(form: str, keys: Sequence[str]) -> None:
    known = FORMS[form].caption_keys
    if wrong := [key for key in keys if key not in known]:
        there = f"has {', '.join(known)}" if known else "has only one place for captions"
        raise DataError(f"--caption_keys {wrong[0]}: the form {form} {there}")


def _settle(paths: Sequence[Path], options: ImportOptions) -> list[tuple[Path, int]]:
    """Join the rows of a bucket by image and clean their captions. Runs in a worker."""
    (path,) = paths
    with path.open(encoding="utf-8") as file:
        rows = sorted((json.loads(line) for line in file), key=itemgetter(0, 1, 2))
    count = 0
    with (
        replacing(path.with_suffix(".json")) as target,
        path.with_suffix(".left_out").open("w", encoding="utf-8") as left_out,
    ):
        for key, group in groupby(rows, key=itemgetter(0)):
            image, captions, pid, faults = _joined([*group], options)
            good, bad = clean(image, captions)
            faults += bad
            if not good:
                faults.append(LeftOut(image, "no caption"))
            else:
                target.write(json.dumps((key, image, good, pid)).encode() + b"\n")
                count += 1
            left_out.writelines(json.dumps(fault) + "\n" for fault in faults)
    path.unlink()
    return [(path, count)]


def _joined(rows: list[list[Any]], options: ImportOptions) -> tuple[str, list[str], Any, list[LeftOut]]:
    """The rows of one image as one; of a file that may name it only once, the later ones are faults."""
    _, _, _, _, image, _, pid = rows[0]
    captions: list[str] = []
    faults: list[LeftOut] = []
    first_in: dict[int, int] = {}
    for _, source, position, joins, _, more, other_pid in rows:
        where = f"{options.annotation[source]}: record {position}"
        first = first_in.setdefault(source, position)
        if first != position and not joins:
            if options.bad_records == "error":
                raise DataError(
                    f"{where} names the image {image!r}, as record {first} does; join them, or keep the first with "
                    "--bad_records skip"
                )
            faults.append(LeftOut(image, "duplicate", f"record {position}, as record {first}"))
        elif other_pid is not None and pid is not None and other_pid != pid:
            raise DataError(f"{where} gives the image {image!r} the id {other_pid!r}, another record the id {pid!r}")
        else:
            captions += more
            pid = other_pid if pid is None else pid
    return image, captions, pid, faults


def _divide(bucket: Path, count: int, most: int) -> list[PlannedShard]:
    """A bucket in shards of about the same size."""
    number = -(-count // most)
    bounds = [count * part // max(number, 1) for part in range(number + 1)]
    return [PlannedShard(bucket, start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]


def flags_that_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of the flags in which two imports differ."""
    return [name for name in one if one[name] != other.get(name)]
