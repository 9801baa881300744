"""UFine6926 (Zuo et al., CVPR 2024): captions of 81 words on average, so ``--text_length 168``."""

from pathlib import Path

from datasets.annotations import read
from datasets.folders import annotation_in, images_in
from datasets.records import Dataset
from utils.options import GetOptions

NAME = "UFine6926"
PUBLISHED = {"train": (None, 18577, 37154), "test": (None, 7629, 15258), "all": (6926, 26206, 52412)}


def load(root: Path, _: GetOptions) -> Dataset:
    """Read ``root/UFine6926/UFine6926_Annotations_1024.json``, or the only json there. Raises DataError.

    Ids in the file start at 1; its paths begin with ``images/``.
    """
    folder = root / NAME
    names = (annotation_in(folder, "UFine6926_Annotations_1024.json"),)
    return read(folder, NAME, names, first_train_id=1, published=PUBLISHED, locate=images_in(folder, (".", "imgs")))
