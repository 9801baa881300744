"""PRW-TPS-CN (Wu et al., 2023): crops of PRW with captions in Chinese and English."""

from pathlib import Path

from datasets.annotations import read
from datasets.records import Dataset
from utils.options import GetOptions

NAME = "PRW-TPS-CN"
_UNKNOWN = (None, None, None)
PUBLISHED = {"train": _UNKNOWN, "val": _UNKNOWN, "test": _UNKNOWN, "all": (993, 11776, 47102)}


def load(root: Path, _: GetOptions) -> Dataset:
    """Read ``root/PRW-TPS-CN/prw_cn_caption_crops.json``; training ids may be any. Raises DataError."""
    return read(root / NAME, NAME, ("prw_cn_caption_crops.json",), first_train_id=None, published=PUBLISHED)
