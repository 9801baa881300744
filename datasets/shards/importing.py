"""From annotation files and images to a folder of shards, in several processes; continues where it was killed.

While an import runs, its folder holds ``.import``: the plan, and for every finished shard what it holds and what was
left out. Only finished shards have their name.
"""

import functools
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.annotations import DataError, first_few
from datasets.images.decode import ImageError, decode_bytes, resized
from datasets.parallel import run_chunks
from datasets.shards import arrow
from datasets.shards.cleaning import LeftOut
from datasets.shards.fingerprint import KnownPictures, fingerprint, known_pictures, test_images
from datasets.shards.index import INDEX, ShardIndex, write_index
from datasets.shards.plan import (
    ImportOptions,
    PlannedShard,
    flags_that_differ,
    form_of,
    make_plan,
    planned_faults,
)
from datasets.shards.tar import ShardContent, ShardRecord, write_shard
from utils import UserError
from utils.files import LOCK, held, replacing, write_text

LEFT_OUT = "left_out.jsonl"
"""in a folder of shards: a line ``[image, reason, detail]`` for everything that did not get into it"""
_WORK = ".import"
_LOOKED_FOR = 100


def import_shards(options: ImportOptions, output: Path, workers: int) -> ShardIndex:
    """Import into ``output``, continuing an import of the same flags; nothing is done where it is complete.

    Args:
        options: what, and how.
        output: the new folder of shards.
        workers: number of processes; changes nothing but the time.

    Raises:
        UserError: an annotation, the folder of images or that of the shards is not usable; what was finished is kept.
    """
    _check(options)
    with held(output, f"--output {output}", "wait for it, or choose another --output"):
        if (output / INDEX).is_dir():
            index = ShardIndex(output)
            _require_same(options, index.about.get("import", {}), output)
            shutil.rmtree(output / _WORK, ignore_errors=True)
            return index
        shards = _planned(options, output, workers)
        _write_shards(options, shards, output, workers)
        _finish(options, len(shards), output)
    return ShardIndex(output)


def _planned(options: ImportOptions, output: Path, workers: int) -> list[PlannedShard]:
    """The shards to write, from the import that was stopped here if it was the same one."""
    work = output / _WORK
    if not work.exists() and any(path.name != LOCK for path in output.iterdir()):
        raise UserError(f"--output {output}: is not empty, and no import that was stopped; choose another")
    begun = work / "flags.json"
    if any(output.glob("*.tar")) and begun.exists():
        _require_same(options, json.loads(begun.read_text()), output)
    elif not begun.exists() or json.loads(begun.read_text()) != _as_saved(options):
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    write_text(begun, json.dumps(options.described()))
    try:
        shards = make_plan(options, work / "plan", workers)
        _require_images(options, shards[0])
    except UserError:
        if not any(output.glob("*.tar")):
            shutil.rmtree(work)
        raise
    return shards


def _as_saved(options: ImportOptions) -> dict[str, Any]:
    return json.loads(json.dumps(options.described()))


def _check(options: ImportOptions) -> None:
    for path in options.annotation:
        if not path.is_file():
            raise UserError(f"--annotation {path}: no such file")
    names = [path.name for path in options.annotation]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--annotation: {twice[0]} is given twice; files need names of their own")
    forms = {path: form_of(path, options.form) for path in options.annotation}
    needing = [path for path, form in forms.items() if form != "luperson-t"]
    if needing and options.images is None:
        raise UserError(f"--images: needed for {needing[0]}, the folder below which its images are")
    if options.images is not None and not options.images.is_dir():
        raise UserError(f"--images {options.images}: no such folder")
    test_images(options.exclude_like)


def _require_same(options: ImportOptions, begun: Mapping[str, Any], output: Path) -> None:
    now = _as_saved(options)
    if differing := flags_that_differ(now, begun):
        flag = differing[0]
        raise UserError(
            f"--output {output}: was made with --{flag} {begun.get(flag)}, now it is {now[flag]}; delete that "
            "folder or choose another"
        )


def _require_images(options: ImportOptions, shard: PlannedShard) -> None:
    """Find out before hours are spent that ``--images`` is the wrong folder."""
    names = [image for _, (_, image, _, _) in zip(range(_LOOKED_FOR), shard.records(), strict=False)]
    source = _Source(options)
    if any(source.is_there(name) for name in names):
        return
    inside = sorted(path.name for path in options.images.iterdir() if path.is_dir()) if options.images else []
    found = [name for name in inside if (options.images / name / names[0]).is_file()]
    hint = (
        f"give {options.images / found[0]}" if found else "give the folder that the paths of the annotation start from"
    )
    raise DataError(f"--images {options.images}: has none of {first_few(names, ', ')}; {hint}")


class _Source:
    """Where the content of images comes from."""

    def __init__(self, options: ImportOptions) -> None:
        self._folder = options.images
        self._tables = {path.name: path for path in options.annotation if arrow.is_arrow(path)}

    def is_there(self, image: str) -> bool:
        """Whether there is a file of this name, or a table that holds it."""
        return self._table(image) is not None or bool(self._folder and (self._folder / image).is_file())

    def read(self, image: str) -> bytes | None:
        """The content of an image; None where there is none."""
        if table := self._table(image):
            return arrow.image_bytes(table, int(image.rpartition("/")[2]))
        path = self._folder / image
        return path.read_bytes() if path.is_file() else None

    def _table(self, image: str) -> Path | None:
        return self._tables.get(image.rpartition("/")[0])


def _write_shards(options: ImportOptions, shards: Sequence[PlannedShard], output: Path, workers: int) -> None:
    open_ones = [number for number in range(len(shards)) if not _is_done(output, number)]
    known = known_pictures(test_images(options.exclude_like), workers) if options.exclude_like and open_ones else None
    write = functools.partial(_write_one, options=options, shards=shards, output=output, known=known)
    for _ in run_chunks(write, [[number] for number in open_ones], workers, "writing shards", "shard"):
        pass


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"{number:06d}.tar"


def _content_path(output: Path, number: int) -> Path:
    return output / _WORK / f"{number:06d}.npz"


def _is_done(output: Path, number: int) -> bool:
    return _content_path(output, number).exists() and (output / shard_name(number)).exists()


def _write_one(
    numbers: Sequence[int],
    options: ImportOptions,
    shards: Sequence[PlannedShard],
    output: Path,
    known: KnownPictures | None,
) -> None:
    """Runs in a worker."""
    (number,) = numbers
    left_out: list[LeftOut] = []
    content = write_shard(output / shard_name(number), _records(shards[number], options, known, left_out))
    content.save(_content_path(output, number), left_out=left_out)


def _records(
    shard: PlannedShard, options: ImportOptions, known: KnownPictures | None, left_out: list[LeftOut]
) -> Iterator[ShardRecord]:
    source = _Source(options)
    for key, image, captions, pid in shard.records():
        try:
            data = source.read(image)
            if not data:
                left_out.append(
                    LeftOut(image, "missing" if data is None else "damaged", "" if data is None else "empty")
                )
                continue
            picture = decode_bytes(data, image)
        except (ImageError, OSError) as error:
            left_out.append(LeftOut(image, "damaged", str(error)))
            continue
        if known is not None and (like := known.like(fingerprint(picture))):
            left_out.append(LeftOut(image, "in a test set", like))
            continue
        if options.resize:
            data = _as_jpeg(resized(picture, options.resize), options.quality)
        yield ShardRecord(key, data, captions, image, pid)


def _as_jpeg(pixels_CHW: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_CHW.transpose(1, 2, 0)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _finish(options: ImportOptions, shards: int, output: Path) -> None:
    paths = [_content_path(output, number) for number in range(shards)]
    reasons: Counter[str] = Counter()
    with replacing(output / LEFT_OUT) as file:
        while_writing = (LeftOut(*fault) for path in paths for fault in ShardContent.load_head(path)["left_out"])
        for fault in chain(planned_faults(output / _WORK / "plan"), while_writing):
            reasons[fault.reason] += 1
            file.write(json.dumps(fault).encode() + b"\n")
    contents = ((shard_name(number), ShardContent.load(path)) for number, path in enumerate(paths))
    write_index(output, contents, {"import": options.described(), "left_out": reasons, "resize": options.resize})
    shutil.rmtree(output / _WORK)
