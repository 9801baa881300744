"""The registry: every data set in it can be named by a flag and loads."""

import json
import shutil
from pathlib import Path

import pytest

from datasets import DATASETS
from datasets.mannequins.options import MannequinOptions
from datasets.open import open_dataset
from datasets.options import DataOptions
from datasets.records import counts
from tests.helpers.runs import DRAWING
from utils import UserError
from utils.command import parse
from utils.options import flags_of

PUBLISHED = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")
LATER = {
    "UFine6926": "UFine6926_Annotations_1024.json",
    "UFine3C": "UFine3C.json",
    "IIITD-20K": "list.json",
    "PRW-TPS-CN": "prw_cn_caption_crops.json",
}
"""data sets that are not drawn, and the name of their annotation"""


@pytest.fixture
def roots(data_root: Path, tmp_path: Path) -> dict[str, Path]:
    """What ``--root_dir`` is for each data set; those that are not drawn have the files of CUHK-PEDES."""
    for name, file in LATER.items():
        shutil.copytree(data_root / "CUHK-PEDES" / "imgs", tmp_path / name / "imgs")
        records = json.loads((data_root / "CUHK-PEDES" / "reid_raw.json").read_text())
        chosen = [record for record in records if record["split"] == "test" or name != "UFine3C"]
        (tmp_path / name / file).write_text(json.dumps(chosen))
    roots = dict.fromkeys(PUBLISHED, data_root) | dict.fromkeys(LATER, tmp_path)
    return roots | {"Mannequins": tmp_path, "Custom": data_root / "CUHK-PEDES"}


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "UFine3C"])
def test_every_entry_loads(name: str, roots: dict[str, Path]):
    dataset = DATASETS[name](roots[name], lambda group: DRAWING if group is MannequinOptions else group())
    ids = {"train": 10, "val": 0 if name == "ICFG-PEDES" else 3, "test": 5}
    for split, expected in ids.items():
        records = dataset.split(split)
        assert counts(records) == (expected, 2 * expected, 2 * 2 * expected), split
        assert all(record.path.is_file() for record in records)
        assert [record.image_id for record in records] == list(range(len(records)))
    assert sorted({record.pid for record in dataset.train}) == list(range(10))
    assert dataset.name == name
    assert dataset.annotation.is_file()


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_is_opened_by_its_flag(name: str, roots: dict[str, Path]):
    drawing = ["--mannequin_train_ids", "2", "--mannequin_val_ids", "0", "--mannequin_test_ids", "1"]
    line = ["--dataset_name", name, "--root_dir", str(roots[name]), "--num_workers", "0", *drawing]
    options = parse({"data": [DataOptions], "drawn": [MannequinOptions]}, line, "")
    opened = open_dataset(
        lambda group: options.get(group) if group in (DataOptions, MannequinOptions) else group(),
        (32, 16),
        {"test": "--test_split"},
    )
    assert opened.dataset.name == name
    assert opened.images.read(opened.dataset.test[0].path).shape == (3, 32, 16)


def test_the_flag_offers_the_registry():
    (flag,) = (flag for flag in flags_of(DataOptions) if flag.name == "dataset_name")
    assert flag.choices == (*DATASETS, "Shards")
    assert flag.default in DATASETS
    with pytest.raises(UserError, match=f"--dataset_name 'Market': choose one of {', '.join(DATASETS)}"):
        flag.coerce("Market")


def test_a_split_that_is_not_there_names_its_flag(data_root: Path):
    given = DataOptions(dataset_name="ICFG-PEDES", root_dir=data_root, num_workers=0)
    message = "^--val_dataset val: ICFG-PEDES has no such split, only train and test$"
    with pytest.raises(UserError, match=message):
        open_dataset(
            lambda group: given if group is DataOptions else group(), (32, 16), {"train": "", "val": "--val_dataset"}
        )
