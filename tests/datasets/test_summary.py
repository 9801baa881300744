"""What a folder holds: recognised by its form, counted, measured in tokens, and shown."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from datasets.annotations import read
from datasets.summary import contact_sheet, describe, recognise
from model.backbones.clip_tokenizer import shared_tokenizer


@pytest.mark.parametrize("name", ["CUHK-PEDES", "Mannequins"])
def test_the_folder_of_a_data_set_is_recognised_itself(name: str, data_root: Path, tmp_path: Path, monkeypatch):
    shutil.copytree(data_root / "CUHK-PEDES", tmp_path / name)
    (found,) = recognise(tmp_path / name)
    assert (found.name, found.root) == (name, tmp_path)
    monkeypatch.chdir(tmp_path / name)
    assert recognise(Path())[0].root == tmp_path


def test_tokens_and_what_is_cut_and_missing(tmp_path: Path):
    captions = ["man " * length for length in (1, 3, 10, 75, 76)]
    rows = [
        {"id": number, "split": "train", "file_path": f"{number}.jpg", "captions": [caption]}
        for number, caption in enumerate(captions)
    ]
    (tmp_path / "reid_raw.json").write_text(json.dumps(rows))
    (tmp_path / "imgs").mkdir()
    Image.new("RGB", (20, 40)).save(tmp_path / "imgs" / "2.jpg")
    dataset = read(tmp_path, "mine", ("reid_raw.json",))
    table = describe(dataset, shared_tokenizer(), 77)
    assert table.rows == (("train", "5", "5", "5", "4", "12", "78", "20.0 %"),)
    assert describe(dataset, shared_tokenizer(), 12).rows[0][-1] == "40.0 %"
    assert contact_sheet(dataset).height > 300, "unreadable images are boxes"
