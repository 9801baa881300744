"""Flags of data: which, how batched, and how training samples are varied."""

import os
from dataclasses import dataclass
from pathlib import Path

from datasets import DATASETS
from datasets.captions import AugmentOptions
from datasets.images.source import ImageOptions
from datasets.label_noise import NoiseOptions
from datasets.mannequins.options import MannequinOptions
from utils.distributed import local_world_size
from utils.options import opt


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how it is batched."""

    dataset_name: str = opt("CUHK-PEDES", "data set; Mannequins is drawn on first use", choices=tuple(DATASETS))
    root_dir: Path = opt(Path("./data"), "folder that holds the data sets (for Custom: the data set itself)")
    val_dataset: str = opt("test", "split that chooses best.pth", choices=("test", "val"))
    batch_size: int = opt(128, "pairs in a training batch, over all processes", least=1)
    test_batch_size: int = opt(512, "images or captions encoded at once in evaluation", least=1)
    num_workers: int | None = opt(None, "processes that load images; default: one per core, at most 8", least=0)
    sampler: str = opt("random", "order of training pairs", choices=("random", "identity"))
    num_instance: int = opt(4, "pairs per identity in a batch of the identity sampler", least=1)
    seed: int = opt(1, "seed of every random choice", least=0)

    @property
    def workers(self) -> int:
        """Loader processes."""
        if self.num_workers is not None:
            return self.num_workers
        return min(8, max(1, (os.cpu_count() or 1) // local_world_size()))


def data_options() -> dict[str, list[type]]:
    """Titles and option dataclasses of everything about data, for the parser."""
    return {
        "data": [DataOptions, ImageOptions, AugmentOptions, NoiseOptions],
        "drawn data (Mannequins)": [MannequinOptions],
    }
