"""JSON element by element: the same as reading it whole, wherever the window ends, and faults are named."""

import json
import random

import pytest

from datasets.annotations import DataError
from datasets.shards import json_stream
from datasets.shards.json_stream import json_elements, json_kind

VALUES = [
    {"a/b.jpg": ['é "quoted" \\ ', "two\nlines", "\U0001f600"], "n": [1, -2.5e3, None, True, {"x": []}]},
    [{"id": 12, "captions": ["a"]}, [], {}, "text", 1234567, -0.5, None, False, [[1], [2]]],
    [12345, 678],
    {},
    [],
    {"k": 123},
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"ensure_ascii": False, "separators": (",", ":")}], ids=str)
def test_the_same_as_reading_it_whole(chunk, value, style, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    text = json.dumps(value, **style)
    path.write_text(f"\ufeff \n{text}\n ", encoding="utf-8")
    expected = list(value.items()) if isinstance(value, dict) else value
    assert list(json_elements(path)) == expected
    assert json_kind(path) is type(value)


def test_keys_that_are_there_twice_are_kept(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": "1", "a": "2"}')
    assert list(json_elements(path)) == [("a", "1"), ("a", "2")]


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_a_file_cut_off_anywhere_is_refused(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    text = json.dumps([{"image": f"{n}.jpg", "captions": ["a \u00e9 man", None, 17.5]} for n in range(5)])
    for end in random.Random(0).sample(range(len(text)), 40):
        path.write_text(text[:end])
        with pytest.raises(
            DataError, match=f"^{path}: (not whole JSON at element [0-5],|expected a JSON list)|ends here"
        ):
            list(json_elements(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1} {"b": 2}]', "at element 1, near '{\"b\": 2}]': ',' or ']' expected"),
        ('[{"a": 1}, {"b": 2, }]', "at element 1"),
        ('{"a" 1}', "':' expected after a key"),
        ("{a: 1}", "a key in double quotes expected"),
        ('[1, "a\nb"]', "Invalid control character"),
        ("12", "expected a JSON list or object"),
        ("", "the file ends here"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_faults_are_named(text, message, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        list(json_elements(path))
    assert message in str(caught.value) and str(caught.value).startswith(f"{path}: ")


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match="No such file"):
        list(json_elements(path))
    path.write_bytes(b'["a\xff"]')
    with pytest.raises(DataError, match="not UTF-8 text"):
        list(json_elements(path))
    assert json_kind(path) is None
    with pytest.raises(DataError, match="Is a directory"):
        json_kind(tmp_path)
