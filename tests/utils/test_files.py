"""Folders that are whole or not there, and locked; yaml as flags are read from it."""

import errno
import fcntl
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from utils import FileError, UserError
from utils.files import LOCK, held, new_folder, read_yaml


@contextmanager
def another_process(folder: Path, ends: Callable[[int], object] = lambda pid: os.kill(pid, signal.SIGKILL)) -> Iterator:
    """A process that holds a folder while the block runs; its number."""
    ready, report = os.pipe()
    if (pid := os.fork()) == 0:
        with held(folder, "", ""):
            os.write(report, b".")
            signal.pause()
        os._exit(0)
    assert os.read(ready, 1) == b"."
    try:
        yield pid
    finally:
        ends(pid)
        os.waitpid(pid, 0)


def test_a_second_process_is_told_who_holds_a_folder(tmp_path: Path):
    with another_process(tmp_path / "run") as pid:
        with pytest.raises(UserError) as refused, held(tmp_path / "run", "--run_dir run", "choose another"):
            pytest.fail("two processes in one folder")
        found = re.fullmatch(
            r"--run_dir run: process (\d+) on (.*) \(since [\d: -]+\) is at work in .*; choose another",
            str(refused.value),
        )
        assert (int(found[1]), found[2]) == (pid, socket.gethostname())
    with held(tmp_path / "run", "", ""):  # the system has released the lock of the killed process
        assert f"process {os.getpid()} on" in (tmp_path / "run" / LOCK).read_text()
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_process_that_is_started_meanwhile_does_not_hold_the_folder(tmp_path: Path):
    with held(tmp_path / "run", "", ""):
        if (child := os.fork()) == 0:
            signal.pause()
    try:
        with another_process(tmp_path / "run"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_folder_in_which_nothing_was_done_goes(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), held(tmp_path / "logs" / "set" / "run", "", ""):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with held(tmp_path / "logs" / "run", "", ""):
        (tmp_path / "logs" / "run" / "best.pth").touch()
    assert [path.name for path in (tmp_path / "logs" / "run").iterdir()] == ["best.pth"]


def test_a_lock_that_is_removed_while_another_process_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, calls = fcntl.lockf, []

    def lockf(file: object, flags: int) -> None:
        if not calls:
            (tmp_path / LOCK).unlink()  # the holder has ended after this process had opened the file
        calls.append(flags)
        real(file, flags)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with held(tmp_path, "", ""):
        assert len(calls) == 2 and (tmp_path / LOCK).exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with held(tmp_path, "", ""):
        assert "cannot lock it (No locks available)" in caplog.text


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileError, match="--run_dir x: .*cannot be written"),
        held(tmp_path / "file" / "run", "--run_dir x", ""),
    ):
        pytest.fail("no folder")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("1:30", "1:30"),
            ("010", "010"),
            ("on", "on"),
            ("1_0", "1_0"),
            ("0x10", "0x10"),
            ("2024-01-01", "2024-01-01"),
        ),
        *(("-3", -3), ("1e-5", 1e-5), ("1.0e-05", 1e-5), (".5", 0.5), ("true", True), ("null", None), ("", None)),
        *(("[1, 2]", [1, 2]), ("!!python/tuple [1, 2]", [1, 2]), ("'010'", "010")),
    ],
)
def test_only_decimal_numbers_are_numbers(tmp_path: Path, text: str, value: object):
    (tmp_path / "a.yaml").write_text(f"key: {text}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"key": value}


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
