"""Captions in CSV and TSV files: read like the json form, and every fault names its line."""

from pathlib import Path

import pytest

from datasets import custom
from datasets.csv_records import CaptionLine, read_captions
from datasets.records import DataError, Dataset


def write(folder: Path, text: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def load(folder: Path) -> Dataset:
    return custom.load(folder, lambda group: group())


def test_lines_of_an_image_are_its_captions(tmp_path: Path):
    write(
        tmp_path,
        "\ufeffSplit,id,Image,caption,source\r\n"
        'train,70,a.jpg,"A man, in ""red"".",x\r\n'
        "train,-3,b.jpg,A woman.,x\r\n"
        "\r\n"
        'train,70,a.jpg,"Two\nlines \u5973",x\r\n'
        "test,9,c.jpg, Boots. ,x\r\n",
    )
    dataset = load(tmp_path)
    assert [(record.pid, record.captions) for record in dataset.train] == [
        (1, ('A man, in "red".', "Two\nlines \u5973")),
        (0, ("A woman.",)),
    ]
    assert (dataset.test[0].pid, dataset.test[0].captions) == (9, ("Boots.",))
    assert dataset.test[0].path == tmp_path / "imgs" / "c.jpg"


def test_tabs_and_no_ids(tmp_path: Path):
    lines = ("file_path\tcaption\tsplit", "a.jpg\tA man, in red\ttrain", "b.jpg\tx\ttrain", "a.jpg\ty\ttrain")
    write(tmp_path, "\n".join(lines), "t.tsv")
    dataset = load(tmp_path)
    assert [(record.pid, record.captions) for record in dataset.train] == [(0, ("A man, in red", "y")), (1, ("x",))]


def test_lines_alone_need_neither_ids_nor_splits(tmp_path: Path):
    path = write(tmp_path, "path,caption\na.jpg,x\nb.jpg,y\n")
    assert read_captions(path) == [CaptionLine(2, "a.jpg", "x", None, None), CaptionLine(3, "b.jpg", "y", None, None)]


def test_json_comes_first_and_two_tables_are_ambiguous(tmp_path: Path):
    write(tmp_path, "path,caption,split\na.jpg,x,train\n", "a.csv")
    write(tmp_path, "path\tcaption\tsplit\nb.jpg\tx\ttrain\n", "b.tsv")
    with pytest.raises(DataError, match=r"which of a.csv, b.tsv is the annotation file"):
        load(tmp_path)
    write(tmp_path, '[{"id": 1, "split": "train", "file_path": "j.jpg", "captions": ["x"]}]', "mine.json")
    assert load(tmp_path).train[0].path.name == "j.jpg"


TITLES = "image,caption,id,split\n"
BAD = {
    "empty": ("", "no column image or file_path or img_path or path in its first line"),
    "titles alone": (TITLES, "has no line below its titles"),
    "other separator": ("image;caption;id;split\n", "titles separated by commas: 'image;caption;id;split'"),
    "no caption": ("image,id\n", "no column caption"),
    "two images": ("image,file_path,caption\n", "columns image, file_path all mean the image; keep one"),
    "no split": ("image,caption,id\na.jpg,x,1\n", "no column split; add one"),
    "few": (TITLES + "a.jpg,x,1,train\nb.jpg,x\n", "line 3 has 2 fields, its titles are 4"),
    "many": (TITLES + "a.jpg,x, y,1,train\n", "line 2 has 5 fields, its titles are 4; put fields with a separator"),
    "id": (TITLES + "a.jpg,x,one,train\n", "line 2: id 'one'; ids are whole numbers"),
    "no id": (TITLES + "a.jpg,x,,train\n", "line 2: id ''"),
    "quotes": (TITLES + '"a.jpg,x,1,train\n', "line 2: unexpected end of data"),
    "two ids": (TITLES + "a.jpg,x,1,train\nb.jpg,x,2,train\na.jpg,y,2,train\n", "line 4 gives 'a.jpg' id 2"),
    "two splits": (TITLES + "a.jpg,x,1,train\na.jpg,y,1,test\n", "line 3 gives 'a.jpg' id 1 and split 'test', line 2"),
    "split": (TITLES + "a.jpg,x,1,train\nb.jpg,x,1,valid\n", "unknown split: line 3: split 'valid'"),
    "no text": (TITLES + "a.jpg,x,1,train\nb.jpg, ,1,train\n", "empty caption: line 3"),
    "path": (TITLES + "../a.jpg,x,1,train\n", "not usable: line 2: file_path '../a.jpg'"),
    "spelling": (TITLES + "a.jpg,x,1,train\n./a.jpg,x,1,train\n", "line 3: 'a.jpg' as line 2"),
    "huge id": (TITLES + f"a.jpg,x,{2**70},train\n", "not a whole number: line 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(case: str, tmp_path: Path):
    content, message = BAD[case]
    write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value) and "mine.csv" in str(caught.value)


def test_not_utf8(tmp_path: Path):
    (tmp_path / "mine.csv").write_bytes(b"image,caption,split\na.jpg,\xff,train\n")
    with pytest.raises(DataError, match="not UTF-8 text"):
        load(tmp_path)
