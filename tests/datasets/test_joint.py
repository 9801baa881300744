"""Several data sets as one: whose is what, and names that do not go together."""

from pathlib import Path

import pytest

from datasets.joint import joined, read_datasets
from datasets.options import DataOptions
from datasets.records import Dataset, ImageRecord
from utils import UserError
from utils.command import parse


def record(pid: int, name: str, captions: int = 2) -> ImageRecord:
    return ImageRecord(pid, 7, Path(name), tuple(f"{name} {number}" for number in range(captions)))


def test_identities_of_different_sets_are_different_people():
    one = Dataset("A", (record(0, "a"), record(1, "b"), record(0, "c")), (), (record(50, "d"),), leaks=("x",))
    two = Dataset("B", (record(0, "e"), record(1, "f")), (record(3, "g"),), (record(50, "h"), record(4, "i")))
    both = joined([one, two])
    assert both.name == "A+B" and both.parts == ("A", "B") and both.leaks == ("A: x",)
    assert [(each.pid, each.image_id, each.path.name, each.part) for each in both.train] == [
        (0, 0, "a", 0), (1, 1, "b", 0), (0, 2, "c", 0), (2, 3, "e", 1), (3, 4, "f", 1),
    ]  # fmt: skip
    assert both.num_train_ids == 4
    assert [(each.pid, each.path.name) for each in both.test] == [(0, "d"), (2, "h"), (1, "i")]
    assert {name: len(records) for name, records in both.by_part("test").items()} == {"A": 1, "B": 2}
    assert both.by_part("val") == {"A": (), "B": both.val}
    assert one.by_part("train") == {"A": one.train}


def test_each_set_needs_the_split(data_root: Path):
    names, flags = ("CUHK-PEDES", "ICFG-PEDES"), lambda group: group()
    both = read_datasets(names, data_root, flags, {"train": "", "test": ""})
    assert both.num_train_ids == 20 and len({record.pid for record in both.test}) == 10
    with pytest.raises(UserError, match="--val_dataset val: ICFG-PEDES has no such split, only train and test"):
        read_datasets(names, data_root, flags, {"val": "--val_dataset"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CUHK-PEDES+CUHK-PEDES", "--dataset_name CUHK-PEDES+CUHK-PEDES: a data set is there twice"),
        ("CUHK-PEDES+Custom", "Custom cannot be joined with others"),
        ("CUHK-PEDES+Market", "--dataset_name 'CUHK-PEDES+Market': choose one of CUHK-PEDES"),
        ("CUHK-PEDES+", "or several joined by +"),
    ],
)
def test_names_that_do_not_go_together(name: str, message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse({"data": [DataOptions]}, ["--dataset_name", name], "")
    assert message in capsys.readouterr().err
