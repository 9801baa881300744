"""TODO"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import cuhk_pedes, custom, icfg_pedes, rstpreid
from datasets.annotations import SPLITS, read
from datasets.captions import AugmentOptions
from datasets.counts_table import counts_table
from datasets.images.source import ImageOptions, Images
from datasets.images.verify import prepare_images
from datasets.mannequins import draw as mannequins
from datasets.records import Dataset, counts
from utils.distributed import local_world_size
from utils.options import opt

log = logging.getLogger("descry")

DATASETS = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid", "Mannequins", "Custom")


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how it is batched."""

    dataset_name: str = opt("CUHK-PEDES", "data set; Mannequins is drawn on first use", choices=DATASETS)
    root_dir: Path = opt(Path("./data"), "folder that holds the data sets (for Custom: the data set itself)")
    val_dataset: str = opt("test", "split that chooses best.pth", choices=("test", "val"))
    batch_size: int = opt(128, "pairs in a training batch, over all processes")
    test_batch_size: int = opt(512, "images or captions encoded at once in evaluation")
    num_workers: int | None = opt(None, "processes that load images; default: one per core, at most 8")
    sampler: str = opt("random", "order of training pairs", choices=("random", "identity"))
    num_instance: int = opt(4, "pairs per identity in a batch of the identity sampler")
    text_length: int = opt(77, "tokens of a caption; longer ones are cut")
    seed: int = opt(1, "seed of every random choice")

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("test_batch_size", 1), ("num_instance", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: expected at least {least}")
        if not self.text_length >= 3:
            raise ValueError(f"--text_length {self.text_length}: expected at least 3 (start, one word, end)")
        if self.num_workers is not None and self.num_workers < 0:
            raise ValueError(f"--num_workers {self.num_workers}: expected 0 or more")

    @property
    def workers(self) -> int:
        """Loader processes."""
        if self.num_workers is not None:
            return self.num_workers
        return min(8, max(1, (os.cpu_count() or 1) // local_world_size()))


def read_dataset(options: DataOptions, drawing: mannequins.MannequinOptions) -> Dataset:
    """Read the annotation of the data set that the flags name; Mannequins are drawn first if they are not there.

    Raises:
        DataError: see :mod:`datasets.annotations`.
    """
    root, name = options.root_dir, options.dataset_name
    readers: dict[str, Callable[[], Dataset]] = {
        "CUHK-PEDES": lambda: cuhk_pedes.load(root),
        "ICFG-PEDES": lambda: icfg_pedes.load(root),
        "RSTPReid": lambda: rstpreid.load(root),
        "Mannequins": lambda: read(mannequins.ensure(root, drawing), name, ("reid_raw.json",), first_train_id=0),
        "Custom": lambda: custom.load(root),
    }
    return readers[name]()


def require_split(dataset: Dataset, split: str, flag: str) -> None:
    """Refuse a split that the data set does not have.

    Raises:
        ValueError: names the flag that asked for it, and the splits that are there.
    """
    if not dataset.split(split):
        have = " and ".join(name for name in SPLITS if dataset.split(name))
        raise ValueError(f"{flag} {split}: {dataset.name} has no such split, only {have}")


def data_groups() -> dict[str, list[type]]:
    """Titles and option dataclasses of everything about data, for the parser."""
    return {
        "data": [DataOptions, ImageOptions, AugmentOptions],
        "drawn data (Mannequins)": [mannequins.MannequinOptions],
    }


def checked_images(
    dataset: Dataset, size: tuple[int, int], options: DataOptions, images: ImageOptions, splits: Sequence[str]
) -> tuple[Dataset, Images]:
    """Check (and with ``--cache`` decode) the images of the splits in use, and log what the data set holds."""
    dataset, source = prepare_images(
        dataset, size, images, options.root_dir, workers=max(options.workers, 1), splits=splits
    )
    log.info("%s\n%s", dataset.name, counts_table({split: counts(dataset.split(split)) for split in splits}))
    return dataset, source
