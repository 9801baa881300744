"""Any folder of images with an annotation file in the reid_raw form: ``--dataset_name Custom --root_dir FOLDER``.

The file is ``reid_raw.json``, or the only ``*.json`` in the folder. A record's ``file_path`` (or ``img_path``) is
looked for under ``FOLDER/imgs/`` first and under ``FOLDER/`` second. Ids are arbitrary whole numbers: training ids are
renumbered 0..n-1 in ascending order, those of val and test stay as they are. Identities and images that two splits
share are reported, not refused.
"""

from pathlib import Path

from datasets.annotations import DataError, read
from datasets.images.verify import FileIndex
from datasets.records import Dataset
from utils.options import GetOptions


def load(folder: Path, _: GetOptions) -> Dataset:
    """Read the data set in ``folder``. Raises DataError."""
    files = FileIndex()

    def locate(image: str) -> Path:
        # An image that is nowhere is reported where it should have been: under imgs/.
        inside, beside = folder / "imgs" / image, folder / image
        return beside if inside not in files and beside in files else inside

    return read(
        folder,
        "Custom",
        (_annotation_name(folder),),
        image_keys=("file_path", "img_path"),
        first_train_id=None,
        leaks_are_errors=False,
        locate=locate,
    )


def _annotation_name(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*.json"))
    if "reid_raw.json" in names or not names:
        return "reid_raw.json"
    if len(names) > 1:
        raise DataError(f"{folder}: which of {', '.join(names)} is the annotation file? Call it reid_raw.json")
    return names[0]
