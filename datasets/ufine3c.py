"""UFine3C (Zuo et al., CVPR 2024): a test set across domains, lengths and styles of captions; nothing to train on."""

from pathlib import Path

from datasets.annotations import read
from datasets.folders import annotation_in, images_in
from datasets.records import Dataset
from utils.options import GetOptions

NAME = "UFine3C"
PUBLISHED = {"test": (2250, 7446, 37939)}


def load(root: Path, _: GetOptions) -> Dataset:
    """Read ``root/UFine3C/UFine3C_Annotations_1024.json``, or the only json there. Raises DataError."""
    folder = root / NAME
    names = (annotation_in(folder, "UFine3C_Annotations_1024.json"),)
    return read(folder, NAME, names, first_train_id=None, published=PUBLISHED, locate=images_in(folder, (".", "imgs")))
