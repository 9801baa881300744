"""``python -m datasets.mannequins``: what it writes, prints and leaves behind."""

import os
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from datasets.mannequins.__main__ import main
from datasets.mannequins.draw import draw
from datasets.mannequins.options import LAYOUTS, MannequinOptions
from tests.helpers.runs import python, started

COMMAND = ["-m", "datasets.mannequins"]
SIZE = ["--train_ids", "3", "--val_ids", "0", "--test_ids", "1", "--images_per_id", "3", "--height", "64"]


def content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_help_fits_a_terminal(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_and_contact_sheet(layout, tmp_path, capsys):
    root, sheet = tmp_path / "data", tmp_path / "new" / "sheet.png"
    main(["--root", str(root), *SIZE, "--layout", layout, "--workers", "1", "--contact_sheet", str(sheet)])
    assert capsys.readouterr().out == f"{root / layout}: {LAYOUTS[layout].file}, imgs/\n{sheet}\n"
    draw(tmp_path / "here", MannequinOptions(3, 0, 1, "3", mannequin_height=64), layout, workers=1)
    assert content(tmp_path / "here") == content(root / layout)
    assert Image.open(sheet).width > 1000


def test_no_contact_sheet(tmp_path):
    line = ["--root", str(tmp_path / "data"), *SIZE, "--workers", "1", "--contact_sheet"]
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "sheet.png", tmp_path / "sheet.unknown"):
        with pytest.raises(ValueError, match=f"--contact_sheet {target}: cannot be written"):
            main([*line, str(target)])
    with pytest.raises(ValueError, match="no identity has 3 images; draw more images of each"):
        main([*line, str(tmp_path / "a.png"), "--root", str(tmp_path / "other"), "--images_per_id", "2"])


def test_errors_are_one_line_in_the_words_of_this_command(tmp_path):
    command = [*COMMAND, "--root", tmp_path, *SIZE]
    run = python(*command)
    assert (run.returncode, run.stderr) == (0, "")
    again = python(*command, "--difficulty", "hard")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        f"python -m datasets.mannequins: error: {tmp_path / 'Mannequins'}: was drawn with --difficulty medium, "
        "not hard; delete that folder or choose another --root\n"
    )


def test_interrupt(tmp_path):
    """Ctrl-C reaches the workers, too."""
    command = [*COMMAND, "--root", tmp_path, "--workers", "2", "--train_ids", "5000", "--height", "64"]
    with started(*command) as process:
        while not any(tmp_path.glob(".*/imgs/train/*.jpg")) and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read()
        assert process.wait() == 130
    assert [line.split(":")[0] for line in said.splitlines()] == ["drawing stopped", "python -m datasets.mannequins"]
    assert list(tmp_path.iterdir()) == []
