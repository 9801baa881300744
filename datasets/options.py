"""Flags of data: which, how batched, and how training samples are varied."""

import os
from dataclasses import dataclass
from pathlib import Path

from datasets import DATASETS
from datasets.captions import AugmentOptions
from datasets.images.source import ImageOptions
from datasets.mannequins.options import MannequinOptions
from utils import UserError
from utils.distributed import local_world_size
from utils.options import opt


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how it is batched."""

    dataset_name: str = opt("CUHK-PEDES", "data set; Mannequins is drawn on first use", choices=tuple(DATASETS))
    root_dir: Path = opt(Path("./data"), "folder that holds the data sets (for Custom: the data set itself)")
    val_dataset: str = opt("test", "split that chooses best.pth", choices=("test", "val"))
    batch_size: int = opt(128, "pairs in a training batch, over all processes")
    test_batch_size: int = opt(512, "images or captions encoded at once in evaluation")
    num_workers: int | None = opt(None, "processes that load images; default: one per core, at most 8")
    sampler: str = opt("random", "order of training pairs", choices=("random", "identity"))
    num_instance: int = opt(4, "pairs per identity in a batch of the identity sampler")
    text_length: int = opt(77, "tokens of a caption; longer ones are truncated")
    seed: int = opt(1, "seed of every random choice")

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("test_batch_size", 1), ("num_instance", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: expected at least {least}")
        if not self.text_length >= 3:
            raise UserError(f"--text_length {self.text_length}: expected at least 3 (start, one word, end)")
        if self.num_workers is not None and self.num_workers < 0:
            raise UserError(f"--num_workers {self.num_workers}: expected 0 or more")

    @property
    def workers(self) -> int:
        """Loader processes."""
        if self.num_workers is not None:
            return self.num_workers
        return min(8, max(1, (os.cpu_count() or 1) // local_world_size()))


def data_options() -> dict[str, list[type]]:
    """Titles and option dataclasses of everything about data, for the parser."""
    return {
        "data": [DataOptions, ImageOptions, AugmentOptions],
        "drawn data (Mannequins)": [MannequinOptions],
    }
