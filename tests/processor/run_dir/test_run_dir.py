"""TensorBoard events and curves of a run that goes back to an earlier place."""

import time
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from processor.run_dir import curves
from processor.run_dir.history import Entry, read_history
from processor.run_dir.record import RunRecord
from processor.run_dir.run_dir import RunDir
from utils.files import before

FACTS = {"weights_sha256": None}


def opened(path: Path, epoch: int) -> RunDir:
    """A run directory that is written from the start of an epoch of four steps on."""
    run_dir = RunDir(path, RunRecord(path, FACTS, resumed=False))
    run_dir.open(epoch, 0, 4)
    return run_dir


def log_step(run_dir: RunDir, epoch: int, step: int, loss: float) -> None:
    """Note one step of four."""
    run_dir.log_training(Entry(epoch, step, 4, train={"loss": loss, "itc_loss": loss}, lr={"1e-05": 1e-6}))


def test_a_run_that_goes_back_leaves_one_line_of_events(tmp_path: Path):
    run_dir = opened(tmp_path, 1)
    for epoch, step in ((1, 2), (1, 4), (2, 2), (2, 4)):
        log_step(run_dir, epoch, step, 9.0)
        if step == 4:
            picture = np.full((8, 6, 3), 40 * epoch, dtype=np.uint8)
            entry = Entry(epoch, 4, 4, val={"R1": 10.0 * epoch, "mAP": 5.0})
            run_dir.log_validation(entry, lambda shown=picture: shown)
    run_dir.draw_curves()
    run_dir.close()
    time.sleep(1.01 - time.time() % 1)  # TensorBoard reads files of one second in the order of their names
    run_dir = opened(tmp_path, 2)
    log_step(run_dir, 2, 2, 7.0)
    run_dir.log_validation(Entry(2, 4, 4, val={"R1": 25.0, "mAP": 6.0}), lambda: picture)
    run_dir.close()

    events = EventAccumulator(str(tmp_path)).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in ("train/loss", "val/R1")}
    assert found == {"train/loss": [(375, 9.0), (875, 9.0), (1375, 7.0)], "val/R1": [(1000, 10.0), (2000, 25.0)]}
    assert {"train/itc_loss", "lr/1e-05", "val/mAP"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("retrieval")] == [1000, 2000]
    assert [entry.val["R1"] for entry in read_history(tmp_path) if entry.val] == [10.0, 25.0]
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 2 * image.height
    assert not list(tmp_path.glob(".*.part"))


def test_nothing_is_written_before_a_run_is_opened(tmp_path: Path):
    run_dir = RunDir(tmp_path, RunRecord(tmp_path, FACTS, resumed=False))
    log_step(run_dir, 1, 2, 1.0)
    run_dir.log_validation(Entry(1, 4, 4, val={"R1": 1.0}), lambda: None)
    run_dir.draw_curves()
    run_dir.close()
    assert not any(tmp_path.iterdir())


def test_curves_are_redrawn_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_dir, now = opened(tmp_path, 1), time.monotonic()
    drawn = []
    monkeypatch.setattr(run_dir, "_writer", MagicMock())
    monkeypatch.setattr(curves, "save_png", lambda figure, path, dpi: drawn.append(path.name))
    for seconds in (5, 11, 12, 20, 22):
        monkeypatch.setattr(time, "monotonic", lambda later=seconds: now + later)
        run_dir.log_validation(Entry(1, 4, 4, val={"R1": 1.0}), lambda: None)
        drawn.append(seconds)
    assert drawn == [5, "curves.png", 11, 12, 20, "curves.png", 22]


def test_checkpoints_keep_the_one_before(tmp_path: Path):
    run_dir = RunDir(tmp_path, RunRecord(tmp_path, FACTS, resumed=False))
    assert not run_dir.has_last
    for epoch in (1, 2):
        run_dir.save_last({"epoch": epoch})
        run_dir.save_best({"epoch": epoch})
    assert run_dir.has_last
    assert torch.load(tmp_path / "last.pth") == torch.load(tmp_path / "best.pth") == {"epoch": 2}
    assert torch.load(before(tmp_path / "last.pth")) == {"epoch": 1}
    assert not before(tmp_path / "best.pth").exists()
