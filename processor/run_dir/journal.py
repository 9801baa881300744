"""What a run writes down beside its log: history.jsonl, curves.png and TensorBoard events."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from processor.run_dir.history import Entry, History, read_history

TICKS = 1000
"""TensorBoard counts in whole numbers; its steps are thousandths of an epoch, for training and validation alike"""


class Journal:
    """The files of one run directory, from a place in the run on."""

    def __init__(self, run_dir: Path, epoch: int, step: int, steps: int, silent: bool = False) -> None:
        """
        Args:
            run_dir: existing folder.
            epoch: the epoch that comes next or goes on; what a former part of the run wrote beyond it is dropped.
            step: steps done in it.
            steps: steps that it has.
            silent: write nothing, as in all processes but one.
        """
        self._silent = silent
        if silent:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and --help must not wait for it

        self._run_dir, self._history = run_dir, History(run_dir)
        self._history.cut(epoch, step)
        start = _ticks(Entry(epoch, step, steps))
        # a start anew is also one after a run that was killed before it had a checkpoint
        self._writer = SummaryWriter(run_dir, purge_step=start + 1 if start else 0)

    def train(self, entry: Entry) -> None:
        """Note the losses and learning rates of a logged step."""
        if self._silent:
            return
        self._add(entry, {"train": entry.train, "lr": entry.lr})

    def validation(self, entry: Entry, picture: Callable[[], Any] | None = None) -> None:
        """Note an evaluation and draw the curves anew.

        Args:
            entry: the epoch and its metrics.
            picture: gives an RGB image (height, width, 3) of some retrievals, for TensorBoard.
        """
        if self._silent:
            return
        from processor.run_dir.curves import draw_curves, save_png

        self._add(entry, {"val": entry.val})
        if picture is not None:
            self._writer.add_image("retrieval", picture(), _ticks(entry), dataformats="HWC")
        self._writer.flush()
        save_png(draw_curves(read_history(self._run_dir)), self._run_dir / "curves.png", dpi=110)

    def _add(self, entry: Entry, scalars: Mapping[str, Mapping[str, float]]) -> None:
        self._history.add(entry)
        for group, values in scalars.items():
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, _ticks(entry))

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if not self._silent:
            self._writer.close()


def learning_rates(groups: list[dict[str, Any]]) -> dict[str, float]:
    """The present rate of every optimiser group, by the rate at full height; groups that share that one share this."""
    return {f"{group['base_lr']:g}": float(group["lr"]) for group in groups}


def _ticks(entry: Entry) -> int:
    """A step counts by its middle, so that an evaluation, at a whole epoch, comes after the last step before it."""
    if entry.val or not entry.step:
        return TICKS * (entry.epoch - (not entry.val))
    return math.floor(TICKS * (entry.epoch - 1 + (entry.step - 0.5) / entry.steps))
