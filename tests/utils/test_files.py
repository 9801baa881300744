"""Folders that are whole or not there; how files are replaced is tested where runs are killed."""

from pathlib import Path

import pytest

from utils import UserError
from utils.files import new_folder


def test_a_folder_appears_once_it_is_complete(tmp_path: Path):
    (tmp_path / "new" / ".out.part").mkdir(parents=True)
    (tmp_path / "new" / ".out.part" / "of a killed process").write_text("")
    with new_folder(tmp_path / "new" / "out", "--output") as folder:
        (folder / "file").write_text("whole")
        assert not (tmp_path / "new" / "out").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "new" / "out").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(UserError("mine"), "^mine$"), (KeyboardInterrupt("now"), "now"), (OSError(28, "full"), r"out: .*\(full\)")],
)
def test_nothing_is_left_of_a_failure(raised: BaseException, seen: str, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt if seen == "now" else UserError, match=seen):
        with new_folder(tmp_path / "out", "--output") as folder:
            (folder / "file").write_text("half")
            raise raised
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path: Path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(UserError, match=f"--output .*{name}: exists already"):
            with new_folder(tmp_path / name, "--output"):
                pytest.fail("entered")
    with pytest.raises(UserError, match="--output .*file/out: cannot be written"):
        with new_folder(tmp_path / "file" / "out", "--output"):
            pytest.fail("entered")
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]
