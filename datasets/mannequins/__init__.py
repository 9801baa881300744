"""Mannequins, a data set that is drawn: who the people are, figures and places, photos, captions, and the files."""

from pathlib import Path

from datasets.annotations import read
from datasets.mannequins.draw import ensure
from datasets.mannequins.options import MannequinOptions
from datasets.records import Dataset
from utils.options import GetOptions


def load(root: Path, get: GetOptions) -> Dataset:
    """Read ``root/Mannequins``, which is drawn first if it is not there. Raises DataError."""
    return read_drawn(ensure(root, get(MannequinOptions)))


def read_drawn(folder: Path) -> Dataset:
    """Read figures that have been drawn, with whatever flags. Raises DataError."""
    return read(folder, "Mannequins", ("reid_raw.json",), first_train_id=0)
