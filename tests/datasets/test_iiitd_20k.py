"""IIITD-20K in both of its forms, and files that are neither."""

import json
from pathlib import Path

import pytest

from datasets import iiitd_20k
from datasets.records import DataError, Dataset, counts


def write(root: Path, content: object, name: str = "Filtered.json") -> Path:
    folder = root / "IIITD-20K"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def load(root: Path) -> Dataset:
    return iiitd_20k.load(root, lambda group: group())


def entry(number: int) -> dict[str, object]:
    return {"Image ID": number, "Description 1": f"A man {number}.", "Description 2": f"He walks {number}."}


def test_the_order_of_the_entries_divides_them(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write(tmp_path, {str(number): entry(40000 - number) for number in range(20000)})
    (folder / "imgs").mkdir()
    (folder / "imgs" / "40000.jpeg").touch()
    (folder / "imgs" / "39999.jpg").touch()
    dataset = load(tmp_path)
    assert not caplog.records
    assert {split: counts(dataset.split(split)) for split in ("train", "val", "test")} == iiitd_20k.PUBLISHED
    assert [record.path.name for record in dataset.train[:2]] == ["40000.jpeg", "39999.jpg"]
    assert dataset.train[0].captions == ("A man 40000.", "He walks 40000.")
    assert [record.pid for record in dataset.train[:3]] == [0, 1, 2]
    assert dataset.val[0].pid == 15000 and dataset.test[0].pid == 17500
    assert dataset.test[-1].captions[0] == f"A man {40000 - 19999}."


def test_two_records_of_an_image_are_joined(tmp_path: Path):
    rows = [
        {"file_path": f"{image}.jpg", "id": image, "captions": [f"{image} {number}"], "split": split}
        for number in range(2)
        for image, split in ((3, "train"), (5, "train"), (8, "val"), (9, "test"))
    ]
    write(tmp_path, rows, "iiitd.json")
    dataset = load(tmp_path)
    assert [record.captions for record in dataset.train] == [("3 0", "3 1"), ("5 0", "5 1")]
    assert [record.pid for record in dataset.train] == [0, 1] and dataset.test[0].pid == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "there is no entry in it"),
        ({"0": entry(1), "1": {"Image ID": 2}}, "entry '1' has not the keys Image ID, Description 1, Description 2"),
        ({"0": entry(1), "7": entry(1)}, "entry '7': '1' as entry '0'. Join the records"),
        ({"0": {**entry(1), "Description 2": " "}}, "empty caption: entry '0': caption 1"),
        ({"0": {**entry(1), "Description 1": None}}, "not a list of texts: entry '0'"),
        ({"0": {**entry(1), "Image ID": 1.5}}, "not usable: entry '0': file_path 1.5"),
        ("text", "expected a list of records, found a JSON str"),
        ([{"file_path": "a.jpg", "id": 1, "captions": ["x"], "split": "dev"}], "unknown split: record 0"),
        (["a"], "not an object: record 0"),
        (
            [
                {"file_path": "a.jpg", "id": 1, "captions": ["x"], "split": "train"},
                {"file_path": "a.jpg", "id": 2, "captions": ["x"], "split": "train"},
            ],
            "record 1: 'a.jpg' as record 0",
        ),
    ],
)
def test_bad_files(content: object, message: str, tmp_path: Path):
    write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value) and "Filtered.json" in str(caught.value)
