"""ICFG-PEDES (Ding et al., 2021). It has no validation split."""

from pathlib import Path

from datasets.annotations import read
from datasets.records import Dataset
from utils.options import GetOptions

PUBLISHED = {"train": (3102, 34674, 34674), "test": (1000, 19848, 19848)}


def load(root: Path, _: GetOptions) -> Dataset:
    """Read ``root/ICFG-PEDES/ICFG-PEDES.json``, or ``ICFG_PEDES.json`` as some READMEs call it. Raises DataError."""
    return read(root / "ICFG-PEDES", "ICFG-PEDES", ("ICFG-PEDES.json", "ICFG_PEDES.json"), published=PUBLISHED)
