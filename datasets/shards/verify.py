"""Whether a folder of shards is as its index says, and every image of it can be decoded."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.annotations import DataError
from datasets.images.decode import ImageError
from datasets.parallel import run_chunks
from datasets.shards.index import ShardIndex, write_index
from datasets.shards.tar import ShardContent, scan_shard


def verify_shards(index: ShardIndex, workers: int) -> list[str]:
    """What is wrong with the shards, in words, each naming the file and the record; nothing if all is well."""
    check = functools.partial(_faults_of, index=index)
    found = dict(
        pair
        for pairs in run_chunks(check, _one_by_one(len(index.shards)), workers, "checking", "shard")
        for pair in pairs
    )
    listed = set(index.shards)
    more = [f"{path}: is not in the index" for path in sorted(index.folder.glob("*.tar")) if path.name not in listed]
    return [fault for _, faults in sorted(found.items()) for fault in faults] + more


def rebuild_index(folder: Path, workers: int) -> ShardIndex:
    """Make the index of a folder of shards from the shards, whoever wrote them.

    Raises:
        DataError: there is no shard, or one is not usable.
    """
    names = sorted(path.name for path in folder.glob("*.tar"))
    if not names:
        raise DataError(f"{folder}: has no tar files; a folder of shards holds NAME.tar")
    found = dict(
        pair
        for pairs in run_chunks(
            functools.partial(_scan, folder=folder), [[name] for name in names], workers, "reading shards", "shard"
        )
        for pair in pairs
    )
    write_index(folder, ((name, found.pop(name)) for name in names), {})
    return ShardIndex(folder)


def _one_by_one(count: int) -> list[list[int]]:
    return [[number] for number in range(count)]


def _scan(names: Sequence[str], folder: Path) -> list[tuple[str, ShardContent]]:
    return [(name, scan_shard(folder / name)) for name in names]


def _faults_of(numbers: Sequence[int], index: ShardIndex) -> list[tuple[int, list[str]]]:
    """Runs in a worker."""
    return [(number, _faults_of_shard(number, index)) for number in numbers]


def _faults_of_shard(number: int, index: ShardIndex) -> list[str]:
    path = index.folder / index.shards[number]
    try:
        content = scan_shard(path)
    except DataError as error:
        return [str(error)]
    if faults := _differences(number, index, content):
        return [f"{path}: {faults[0]}; fetch the shard again, or make the index again: python -m datasets.shards index"]
    bad = []
    for image in range(*index.first_S[number : number + 2].tolist()):
        try:
            index.picture(image)
        except ImageError as error:
            bad.append(str(error))
    return bad


def _differences(number: int, index: ShardIndex, content: ShardContent) -> list[str]:
    """Between the index and the content of a shard."""
    first, stop = index.first_S[number : number + 2].tolist()
    if content.sha256 == index.about["shards"][number][3]:
        where = ""
    else:
        where = " (its SHA-256 differs from that of the index)"
    if len(content.offset_N) != stop - first:
        return [f"holds {len(content.offset_N)} images, the index says {stop - first}{where}"]
    same = (content.offset_N == index.offset_N[first:stop]) & (content.size_N == index.size_N[first:stop])
    same &= content.caption_count_N == np.diff(index.caption_start_N[first : stop + 1])
    if not same.all():
        return [f"differs from the index from {index.name(first + int(same.argmin()))} on{where}"]
    if content.text != index.texts(first, stop):
        return [f"captions differ from those of the index{where}"]
    return ["has changed since the index was made" + where] if where else []
