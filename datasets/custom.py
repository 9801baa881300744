"""Any folder of images with captions: ``--dataset_name Custom --root_dir FOLDER``.

The captions are in ``reid_raw.json``, in the only ``*.json`` of the folder, or in its only ``*.csv`` or ``*.tsv``. An
image is looked for under ``FOLDER/imgs/`` first and under ``FOLDER/`` second. Ids are arbitrary whole numbers: training
ids are renumbered 0..n-1 in ascending order, those of val and test stay as they are. Identities and images that two
splits share are reported, not refused.
"""

from pathlib import Path

from datasets.annotations import json_list, read
from datasets.csv_records import csv_content
from datasets.folders import annotation_in, images_in
from datasets.records import Dataset
from utils.options import GetOptions


def load(folder: Path, _: GetOptions) -> Dataset:
    """Read the data set in ``folder``. Raises DataError."""
    name = annotation_in(folder, "reid_raw.json", ("*.json", "*.[ct]sv"))
    return read(
        folder,
        "Custom",
        (name,),
        image_keys=("file_path", "img_path"),
        first_train_id=None,
        leaks_are_errors=False,
        locate=images_in(folder),
        load=json_list if name.endswith(".json") else csv_content,
    )
