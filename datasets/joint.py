"""Several data sets as one, to train one model for all: ``--dataset_name CUHK-PEDES+ICFG-PEDES+RSTPReid``.

Identities of different sets are different people. Each set is evaluated by itself.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from datasets import DATASETS
from datasets.annotations import SPLITS
from datasets.records import Dataset, ImageRecord
from utils import UserError
from utils.options import GetOptions


def read_datasets(names: Sequence[str], root: Path, get: GetOptions, splits: dict[str, str]) -> Dataset:
    """The data set of a name, or those of several names as one.

    ``splits``: which are needed, each with the flag that asks for it.

    Raises:
        DataError: a data set cannot be used.
        UserError: one lacks a split.
    """
    datasets = [DATASETS[name](root, get) for name in names]
    for dataset in datasets:
        for split, flag in splits.items():
            if not dataset.split(split):
                have = " and ".join(name for name in SPLITS if dataset.split(name))
                raise UserError(f"{flag} {split}: {dataset.name} has no such split, only {have}")
    return datasets[0] if len(datasets) == 1 else joined(datasets)


def joined(datasets: Sequence[Dataset]) -> Dataset:
    """Data sets one after the other, their identities and images numbered through in every split."""
    splits = []
    for split in SPLITS:
        number: dict[tuple[int, int], int] = {}
        records: list[ImageRecord] = []
        new = count()
        for part, dataset in enumerate(datasets):
            for pid in sorted({record.pid for record in dataset.split(split)}):
                number[part, pid] = next(new)
            for record in dataset.split(split):
                records.append(record._replace(pid=number[part, record.pid], image_id=len(records), part=part))
        splits.append(tuple(records))
    names = tuple(dataset.name for dataset in datasets)
    leaks = tuple(f"{dataset.name}: {leak}" for dataset in datasets for leak in dataset.leaks)
    files = tuple(path for dataset in datasets for path in dataset.files)
    return Dataset("+".join(names), *splits, leaks=leaks, parts=names, more_files=files)
