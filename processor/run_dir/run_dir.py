"""A run directory that is being written."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from processor.run_dir.checkpoint import write_checkpoint
from processor.run_dir.history import Entry, append_entry, cut_history, read_history
from processor.run_dir.layout import RunOptions
from processor.run_dir.record import RunRecord, facts_of
from utils.device import Precision
from utils.distributed import is_main
from utils.options import Options

TICKS = 1000
"""TensorBoard counts in whole numbers; its steps are thousandths of an epoch, for training and validation alike"""

REDRAW_SECONDS = 10
"""after which an evaluation redraws the curves: that takes a third of a second, as long as a small epoch"""


def open_run_dir(
    path: Path, options: Options, precision: Precision, weights: Path | None, annotations: Sequence[Path]
) -> "RunDir":
    """The run directory that these flags begin or, in a resumed run, continue.

    ``weights`` is the file that training starts from, None for random ones; ``annotations`` are those of the data.

    Raises:
        UserError: the run continues and the annotations have changed.
    """
    facts = facts_of(options.flat(), precision, weights, annotations)
    return RunDir(path, RunRecord(path, facts, options.get(RunOptions).resume))


class RunDir:
    """Checkpoints, run.json, history.jsonl, curves.png and TensorBoard events of one run; the main process writes."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        """The folder must exist once anything is written."""
        self.path, self.record = path, record
        self._writer: Any = None
        self._redraw_at = 0.0

    def open(self, epoch: int, step: int, steps: int) -> None:
        """Begin to write after ``step`` of the ``steps`` of an epoch; what the run wrote beyond that is dropped."""
        if not is_main():
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and --help must not wait for it

        cut_history(self.path, epoch, step)
        start = _ticks(Entry(epoch, step, steps))
        # a fresh start includes one after a run that was killed before it had a checkpoint
        self._redraw_at = time.monotonic() + REDRAW_SECONDS
        self._writer = SummaryWriter(self.path, purge_step=start + 1 if start else 0)

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._writer:
            self._writer.close()

    def log_training(self, entry: Entry) -> None:
        """Record the losses and learning rates of a logged step."""
        self._add(entry, {"train": entry.train, "lr": entry.lr})

    def log_division(self, entry: Entry) -> None:
        """Record what a division of the training pairs before an epoch found."""
        self._add(entry, {"division": entry.division})

    def log_validation(self, entry: Entry, picture: Callable[[], Any]) -> None:
        """Record an evaluation; ``picture`` gives retrievals as RGB (height, width, 3).

        The curves are redrawn, unless they were less than :data:`REDRAW_SECONDS` ago.
        """
        if not self._writer:
            return
        self._add(entry, {"val": entry.val})
        self._writer.add_image("retrieval", picture(), _ticks(entry), dataformats="HWC")
        self._writer.flush()
        if time.monotonic() >= self._redraw_at:
            self.draw_curves()

    def draw_curves(self) -> None:
        """Draw curves.png from history.jsonl."""
        if not self._writer:
            return
        from processor.run_dir.curves import draw_curves, save_png  # slow to import, and --help must not wait for it

        self._redraw_at = time.monotonic() + REDRAW_SECONDS
        save_png(draw_curves(read_history(self.path)), self.path / "curves.png", dpi=110)

    @property
    def has_last(self) -> bool:
        """Whether there is a last.pth to resume from."""
        return (self.path / "last.pth").exists()

    def save_last(self, content: Mapping[str, Any]) -> None:
        """Write last.pth, from which training resumes, and keep the one before it."""
        write_checkpoint(self.path / "last.pth", content, keep=True)

    def save_best(self, content: Mapping[str, Any]) -> None:
        """Write best.pth."""
        write_checkpoint(self.path / "best.pth", content)

    def _add(self, entry: Entry, scalars: Mapping[str, Mapping[str, float]]) -> None:
        if not self._writer:
            return
        append_entry(self.path, entry)
        for group, values in scalars.items():
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, _ticks(entry))


def _ticks(entry: Entry) -> int:
    """A step counts by its middle, so that an evaluation, at a whole epoch, comes after the last step before it."""
    if entry.val:
        return math.floor(TICKS * entry.position)
    if not entry.step:
        return TICKS * (entry.epoch - 1)
    return math.floor(TICKS * (entry.epoch - 1 + (entry.step - 0.5) / entry.steps))
