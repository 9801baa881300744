"""The command that says what a folder holds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from datasets.describe import main


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
