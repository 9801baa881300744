"""CUHK-PEDES (Li et al., CVPR 2017)."""

from pathlib import Path

from datasets.annotations import read
from datasets.folders import refuse_caption_all
from datasets.records import Dataset
from utils.options import GetOptions

PUBLISHED = {"train": (11003, 34054, 68126), "val": (1000, 3078, 6158), "test": (1000, 3074, 6156)}


def load(root: Path, _: GetOptions) -> Dataset:
    """Read ``root/CUHK-PEDES/reid_raw.json``; ids in the file start at 1. Raises DataError."""
    refuse_caption_all(root / "CUHK-PEDES", "reid_raw.json")
    return read(root / "CUHK-PEDES", "CUHK-PEDES", ("reid_raw.json",), first_train_id=1, published=PUBLISHED)
