"""TensorBoard events and curves of a run that goes back to an earlier place."""

from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from processor.run_dir.history import Entry, read_history
from processor.run_dir.journal import Journal, learning_rates


def logged(journal: Journal, epoch: int, step: int, loss: float) -> None:
    """Note one step of four."""
    journal.train(Entry(epoch, step, 4, train={"loss": loss, "itc_loss": loss}, lr={"1e-05": 1e-6}))


def test_a_run_that_goes_back_leaves_one_line_of_events(tmp_path: Path):
    journal = Journal(tmp_path, 1, 0, 4)
    for epoch, step in ((1, 2), (1, 4), (2, 2), (2, 4)):
        logged(journal, epoch, step, 9.0)
        if step == 4:
            picture = np.full((8, 6, 3), 40 * epoch, dtype=np.uint8)
            journal.validation(Entry(epoch, 4, 4, val={"R1": 10.0 * epoch, "mAP": 5.0}), lambda shown=picture: shown)
    journal.close()
    journal = Journal(tmp_path, 2, 0, 4)
    logged(journal, 2, 2, 7.0)
    journal.validation(Entry(2, 4, 4, val={"R1": 25.0, "mAP": 6.0}))
    journal.close()

    events = EventAccumulator(str(tmp_path)).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in ("train/loss", "val/R1")}
    assert found == {"train/loss": [(375, 9.0), (875, 9.0), (1375, 7.0)], "val/R1": [(1000, 10.0), (2000, 25.0)]}
    assert {"train/itc_loss", "lr/1e-05", "val/mAP"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("retrieval")] == [1000]
    assert [entry.val["R1"] for entry in read_history(tmp_path) if entry.val] == [10.0, 25.0]
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 2 * image.height
    assert not list(tmp_path.glob(".*.part"))


def test_groups_are_named_by_their_full_rate():
    groups = [{"base_lr": 1e-5, "lr": 1e-6}, {"base_lr": 5e-5, "lr": 5e-6}, {"base_lr": 1e-5, "lr": 1e-6}]
    assert learning_rates(groups) == {"1e-05": 1e-6, "5e-05": 5e-6}
