"""What a folder holds: recognised by its form, counted, measured in tokens, and shown."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from datasets.annotations import read
from datasets.describe import contact_sheet, describe, main, recognise
from model.backbones.clip_tokenizer import shared_tokenizer


def test_every_data_set_below_a_root_gets_its_table(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main([str(data_root), "--output", str(tmp_path / "sheets")])
    printed = capsys.readouterr().out
    for name in ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid"):
        assert f"{name}: --dataset_name {name} --root_dir {data_root}" in printed
        with Image.open(tmp_path / "sheets" / f"{name}.jpg") as sheet:
            assert sheet.width > 700
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "| train" in line]
    assert len(rows) == 3 and rows[0][:5] == ["train", "10", "20", "40", "0"]


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


def test_a_table_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.tsv").write_text("image\tcaption\tsplit\na.jpg\tA man.\ttest\n")
    main(["."])
    assert "Custom: --dataset_name Custom --root_dir ." in capsys.readouterr().out
    assert (tmp_path / "Custom.jpg").is_file()


def test_bad_folders(tmp_path: Path, data_root: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]):
    command = "datasets.describe"
    assert "nowhere: no such folder" in fails(command, tmp_path / "nowhere")
    assert "no data set here; expected a folder called CUHK-PEDES" in fails(command, tmp_path)
    (tmp_path / "caption_all.json").write_text("[]")
    assert "is not the file of the benchmark, because it has no splits" in fails(command, tmp_path)
    assert "--text_length 2: expected at least 3" in fails(command, tmp_path, "--text_length", "2")
    shutil.copytree(data_root / "RSTPReid", tmp_path / "RSTPReid")
    (tmp_path / "CUHK-PEDES").mkdir()
    assert "1 of 2 data sets cannot be used" in fails(command, tmp_path, "--output", tmp_path / "out")
    assert (tmp_path / "out" / "RSTPReid.jpg").is_file()
    (tmp_path / "file").touch()
    message = fails(command, data_root / "CUHK-PEDES", "--output", tmp_path / "file")
    assert f"--output {tmp_path / 'file' / 'CUHK-PEDES.jpg'}: cannot be written" in message
