"""``history.jsonl`` of a run directory: every logged step and every evaluation, one json object per line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from utils import FileError, UserError
from utils.files import write_text

NAME = "history.jsonl"


class Entry(NamedTuple):
    """One line; an evaluation has ``val`` and nothing else of the last four, the division of an epoch ``division``."""

    epoch: int
    """1 in the first epoch"""
    step: int
    """steps done in the epoch"""
    steps: int
    """steps of the epoch"""
    train: Mapping[str, float] = {}
    """means of the epoch so far, by name: loss, each weighted loss, the heads' metrics"""
    lr: Mapping[str, float] = {}
    """learning rates now, by the rate at full height that the optimiser group started from"""
    val: Mapping[str, float] = {}
    """R1, R5, R10, mAP, mINP of the validation split, in percent"""
    division: Mapping[str, float] = {}
    """before the first step of an epoch: how many training pairs were called clean, uncertain and noisy and how many
    are used, and where captions were exchanged on purpose, how well that was found, in percent"""

    @property
    def position(self) -> float:
        """Epochs done, with the part of the present one."""
        return self.epoch - 1 + self.step / self.steps

    def line(self) -> str:
        """As it is stored: without what is empty."""
        return json.dumps({name: value for name, value in self._asdict().items() if value != {}}) + "\n"


def read_history(run_dir: Path) -> list[Entry]:
    """The entries of a run directory; none where there is no file. A last line that was cut off is left out.

    Raises:
        UserError: names the file and the first line that is no entry.
    """
    path = run_dir / NAME
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break  # the process was killed while it wrote
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: line {number} is damaged ({error}); delete the line") from None
    return entries


def append_entry(run_dir: Path, entry: Entry) -> None:
    """Add a line, which is in the file when this returns.

    Raises:
        FileError: it cannot be written, on a full disk for instance.
    """
    try:
        with (run_dir / NAME).open("a", encoding="utf-8") as file:
            file.write(entry.line())
    except OSError as error:
        raise FileError(f"{run_dir / NAME}: cannot be written ({error.strerror})") from error


def cut_history(run_dir: Path, epoch: int, step: int) -> None:
    """Drop what lies beyond a place that the run returns to, so that the file ends up as if it had never stopped.

    ``step`` steps are done in ``epoch``, which comes next or continues.
    """

    def keeps(entry: Entry) -> bool:  # a state after the last step of an epoch does not know that it was evaluated
        done = entry.epoch == epoch and entry.step <= step and not (entry.val and entry.step == entry.steps)
        return entry.epoch < epoch or (done and not (entry.division and not step))  # which is divided once more

    write_text(run_dir / NAME, "".join(entry.line() for entry in read_history(run_dir) if keeps(entry)))
