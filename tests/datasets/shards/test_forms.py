"""What a record of each form is, and that no form is taken for another."""

import json

import pytest

from datasets.annotations import DataError
from datasets.shards.forms import FORMS, Record, RecordError, read_records, recognise
from tests.helpers.annotations import write_form, write_images

CAPTIONS = {"part0/0.jpg": ["one", "two"], "part1/1.jpg": ["three", "four"]}


@pytest.mark.parametrize("form", FORMS)
def test_recognised(form, tmp_path):
    write_images(tmp_path, 2)
    for path in write_form(form, tmp_path, CAPTIONS, tmp_path):
        assert recognise(path) == form


def read(form: str, tmp_path, content: object, name: str = "a.json") -> list[Record | RecordError]:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return list(read_records(FORMS[form], path, ()))


def test_luperson_mllm_goes_by_base_names(tmp_path):
    assert read("luperson-mllm", tmp_path, {"a/b/c.jpg": "x"}) == [Record("c.jpg", ["x"])]


def test_webperson_loses_the_literal_line_break(tmp_path):
    found = read("webperson", tmp_path, [{"a/1.jpg": {"caption1": "x/n y", "caption2": "z"}}])
    assert found == [Record("a/1.jpg", ["x  y", "z"])]


def test_tables(tmp_path):
    expected = [Record("a.jpg", ["x, y"], 0, None), Record("a.jpg", ["z"], "p1", "val")]
    assert read("csv", tmp_path, 'Path, Caption ,id,split\na.jpg,"x, y",0,\na.jpg,z,p1,val\n', "a.csv") == expected
    assert read("csv", tmp_path, "image\ttext\na.jpg\tz\n", "a.tsv") == [Record("a.jpg", ["z"])]
    assert str(*read("csv", tmp_path, "path,caption\na.jpg\n", "a.csv")) == "has fewer cells than the first line"
    assert "has no column caption (or text, title)" in str(*read("csv", tmp_path, "path\na.jpg\n", "a.csv"))
    with pytest.raises(DataError, match="not a table"):
        read("csv", tmp_path, 'path,caption\na.jpg,"x\n', "a.csv")


@pytest.mark.parametrize(
    "form", ["webperson", "mals", "sda", "synth-pedes", "largefine", "reid-raw", "ham", "luperson-mllm"]
)
@pytest.mark.parametrize("wrong", [None, 3, "x", [], {}, {"a": 1, "b": 2}, [1, 2, 3]], ids=str)
def test_records_of_no_form_are_faults_and_not_exceptions(form, wrong, tmp_path):
    content = {"a.jpg": wrong} if FORMS[form].container is dict else [wrong]
    (found,) = read(form, tmp_path, content)
    if not (form == "ham" and wrong == []) and not (form == "luperson-mllm" and wrong == "x"):
        assert isinstance(found, RecordError)


def test_arrow_files_that_are_not_whole(tmp_path):
    write_images(tmp_path, 2)
    (path,) = write_form("luperson-t", tmp_path, CAPTIONS, tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=f"^{path}: not a whole Arrow file"):
        recognise(path)
