"""RSTPReid (Zhu et al., ACM MM 2021)."""

from pathlib import Path

from datasets.annotations import read
from datasets.records import Dataset
from utils.options import GetOptions

PUBLISHED = {"train": (3701, 18505, 37010), "val": (200, 1000, 2000), "test": (200, 1000, 2000)}


def load(root: Path, _: GetOptions) -> Dataset:
    """Read ``root/RSTPReid/data_captions.json``. Raises DataError."""
    return read(root / "RSTPReid", "RSTPReid", ("data_captions.json",), image_keys=("img_path",), published=PUBLISHED)
