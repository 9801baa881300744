"""Training that is killed at any moment and resumed ends as if it had never been interrupted."""

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from processor.run_dir.checkpoint import read_last, write_checkpoint
from tests.helpers.children import SYSTEMS, finish, flags_of, kill_self, resume, start
from tests.helpers.runs import same_tensors


def assert_same_run(whole: Path, cut: Path) -> None:
    for name in ("last.pth", "last.previous.pth", "best.pth"):
        same_tensors(whole / name, cut / name)
    flags = [(folder / "configs.yaml").read_text().replace(folder.name, "") for folder in (whole, cut)]
    assert flags[0] == flags[1]
    records = [json.loads((folder / "run.json").read_text()) for folder in (whole, cut)]
    assert records[0]["finished"] and records[1]["finished"]
    for key in ("best", "last", "annotation_sha256", "losses"):
        assert records[0][key] == records[1][key]
    assert scalars(whole) == scalars(cut)
    assert (whole / "history.jsonl").read_text() == (cut / "history.jsonl").read_text()
    assert (whole / "history.jsonl").read_bytes() == (cut / "history.jsonl").read_bytes()
    left = {path.name for path in cut.iterdir() if not path.name.startswith("events.")}
    assert left == {path.name for path in whole.iterdir() if not path.name.startswith("events.")}


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_twenty_kills_at_random_moments(data_root: Path, tmp_path: Path):
    more = ["--save_every", "1", "--num_epoch", "7", "--log_period", "1", "--eval_period", "2"]
    said, cut, dice = tmp_path / "said.txt", tmp_path / "cut", random.Random(0)
    assert finish(flags_of("ECCL", data_root, tmp_path / "whole", *more), said) == 0
    argv, kills = flags_of("ECCL", data_root, cut, *more), 0
    while kills < 20:
        process, stepping = start(argv, said)
        if kills % 5:
            stepping.wait(60)
            time.sleep(dice.uniform(0, 0.05))
        else:
            time.sleep(dice.uniform(0.05, 0.4))  # anywhere from the start on
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run was over before it was killed; train for longer"
        kills += 1
        argv = resume(cut) if (cut / "configs.yaml").exists() else argv
    assert finish(argv, said) == 0, said.read_text()
    assert_same_run(tmp_path / "whole", cut)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_goes_on_within_an_epoch(data_root: Path, tmp_path: Path, system: str):
    said, cut = tmp_path / "said.txt", tmp_path / "cut"
    assert finish(flags_of(system, data_root, tmp_path / "whole", "--save_every", "3"), said) == 0, said.read_text()
    assert finish(flags_of(system, data_root, cut, "--save_every", "3"), said, ("step", 10)) == -signal.SIGKILL
    saved = torch.load(cut / "last.pth", weights_only=True)["progress"]
    assert (saved["epoch"], saved["step"]) == (2, 3)
    assert finish(resume(cut), said) == 0, said.read_text()
    assert_same_run(tmp_path / "whole", cut)
    if system == "DGCMIA":  # its report counts the pairs of the whole epoch, also of the steps before the kill
        logs = [(folder / "train_log.txt").read_text() for folder in (tmp_path / "whole", cut)]
        reports = [re.findall(r"epoch 2, memory_soft: (.*)", log) for log in logs]
        assert reports[0] == reports[1] and len(reports[0]) == 1


def test_killed_before_each_checkpoint(data_root: Path, tmp_path: Path):
    """The writes are, by epoch: last.pth where there is none, best.pth where it is better, last.pth."""
    said, cut = tmp_path / "said.txt", tmp_path / "cut"
    assert finish(flags_of("ECCL", data_root, tmp_path / "whole"), said) == 0
    argv = flags_of("ECCL", data_root, cut)
    for number in (1, 2, 2, 1):  # nothing saved; best.pth missing; best.pth newer than last.pth; epoch 2 not saved
        assert finish(argv, said, ("write", number)) == -signal.SIGKILL
        argv = resume(cut)
    assert (cut / "best.pth").exists()
    assert finish(argv, said) == 0
    assert_same_run(tmp_path / "whole", cut)
    assert "had not saved anything yet" in said.read_text()


OPERATIONS = ("fsync", "replace", "link", "unlink", "open")


def test_every_moment_of_writing_leaves_a_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    """A process that writes 1, 2 and 3 is killed before its first, second, ... operation on files."""
    completed = -1
    for moment in range(1, 200):
        folder = tmp_path / str(moment)
        folder.mkdir()
        child_id = os.fork()
        if child_id == 0:
            _write_three(folder, moment, monkeypatch)
        _, status = os.waitpid(child_id, 0)
        content = read_last(folder / "last.pth")
        whole = 0 if content is None else content["number"]
        assert whole in (completed, completed + 1) or completed == -1
        completed = max(completed, whole)
        if os.WIFEXITED(status):
            break
        write_checkpoint(folder / "last.pth", {"number": 9}, keep=True)
        assert read_last(folder / "last.pth") == {"number": 9}
        assert not list(folder.glob(".*"))
    assert completed == 3 and moment > 15
    assert torch.load(folder / "last.previous.pth") == {"number": 2}


def _write_three(folder: Path, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [moment]

    def counted(function: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                kill_self()
            return function(*args, **kwargs)

        return call

    for name in OPERATIONS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(torch, "save", counted(torch.save))
    for number in (1, 2, 3):
        write_checkpoint(folder / "last.pth", {"number": number}, keep=True)
    os._exit(0)
