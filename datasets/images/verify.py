"""Images that cannot be used: found at the start, and refused or left out as ``--bad_images`` says."""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.annotations import SPLITS, DataError, first_few
from datasets.images.cache import ImageCache
from datasets.images.decode import verify_images
from datasets.images.source import ImageOptions, Images
from datasets.records import Dataset, ImageRecord

logger = logging.getLogger("descry")


class FileIndex:
    """Which files exist, from one listing per folder rather than one question to the file system per file."""

    def __init__(self) -> None:
        self._names = functools.cache(_file_names)

    def __contains__(self, path: Path) -> bool:
        folder, name = os.path.split(path)
        return name in self._names(folder)


def _file_names(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:
        return frozenset()


def prepare_images(
    dataset: Dataset,
    size: tuple[int, int],
    options: ImageOptions,
    root: Path,
    *,
    workers: int,
    splits: Sequence[str] = SPLITS,
    eval_filter: str = "bilinear",
) -> tuple[Dataset, Images]:
    """Check the images of ``splits``, build their caches if asked to, and leave out what cannot be used if allowed.

    Missing files are always found here. Undecodable ones are found here with ``--cache`` or ``--bad_images skip``,
    which read every file anyway, and otherwise when they are loaded.

    Args:
        dataset: as a reader returned it.
        size: (H, W) of the images.
        options: the flags.
        root: ``--root_dir``, below which the caches are by default.
        workers: number of processes.
        splits: which splits will be used; the others are left alone.
        eval_filter: what splits other than train are resized with.

    Returns:
        the data set, without the images that were left out, and the source of its pixels.

    Raises:
        DataError: images are missing or undecodable and may not be left out, or the cache cannot be built.
    """
    skip = options.bad_images == "skip"
    paths = {split: [record.path for record in dataset.split(split)] for split in splits if dataset.split(split)}
    files = FileIndex()
    faults = {path: f"{path}: no such file" for group in paths.values() for path in group if path not in files}
    caches: list[ImageCache] = []
    if faults and not skip:
        raise _refusal(faults)
    if options.cache:
        folder = options.cache_dir or root / ".image_cache"
        filters = dict.fromkeys(splits, eval_filter) | {"train": "bilinear"}
        caches = [ImageCache(folder, f"{dataset.name}-{each}", paths[each], size, filters[each]) for each in paths]
        for cache in caches:
            faults.update(cache.build(workers))
    elif skip:
        present = [path for group in paths.values() for path in group if path not in faults]
        faults.update(verify_images(present, workers))
    if faults and not skip:
        raise _refusal(faults)
    return without(dataset, faults), Images(size, caches)


def _refusal(faults: Mapping[Path, str]) -> DataError:
    noun = "image" if len(faults) == 1 else "images"
    return DataError(
        f"{len(faults)} {noun} missing or undecodable: {first_few(list(faults.values()))}. "
        "Restore them, or leave them out with --bad_images skip"
    )


def without(dataset: Dataset, faults: Mapping[Path, str]) -> Dataset:
    """The data set without the images that ``faults`` gives a reason for; each step is logged as a warning.

    Training ids that lose all their images would leave gaps: the others are renumbered 0..n-1 in the same order.

    Raises:
        DataError: a split would be left without any image.
    """
    if not faults:
        return dataset
    kept: dict[str, tuple[ImageRecord, ...]] = {}
    for split in SPLITS:
        before = dataset.split(split)
        records = [record for record in before if record.path not in faults]
        if before and not records:
            raise DataError(f"{dataset.name} {split}: no image can be used: {first_few(list(faults.values()))}")
        if lost := len(before) - len(records):
            logger.warning("%s %s: left out %d of %d images", dataset.name, split, lost, len(before))
        kept[split] = tuple(record._replace(image_id=number) for number, record in enumerate(records))
    logger.warning("left out because of: %s", first_few(list(faults.values())))
    kept["train"] = _without_gaps(dataset, kept["train"])
    return replace(dataset, **kept)


def _without_gaps(dataset: Dataset, train: tuple[ImageRecord, ...]) -> tuple[ImageRecord, ...]:
    ids = sorted({record.pid for record in train})
    before = dataset.num_train_ids
    if len(ids) == before:
        return train
    message = "%s train: %d of %d identities have no image left; the others are renumbered"
    logger.warning(message, dataset.name, before - len(ids), before)
    new_id = {pid: number for number, pid in enumerate(ids)}
    return tuple(record._replace(pid=new_id[record.pid]) for record in train)
