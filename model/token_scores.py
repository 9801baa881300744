"""A score for every token of every training caption, in a file that all processes share.

A score is kept in one byte until its caption is seen again. What a score was before it was overwritten is written down
first, so that the file can be set back to where a checkpoint of the run was made.
Shape letters: N captions, B captions of a batch, L positions.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils import FileError, UserError
from utils.distributed import is_main, local_world_size, on_main, world_size

_HEAD = struct.Struct("<qq")
"""of an entry of an undo file: the step that overwrote, and how many captions; their numbers and rows follow"""


class TokenScores:
    """Scores in -1..1, or none yet, of N captions with L positions; all processes read, the main process writes."""

    def __init__(self, folder: Path, captions: int, length: int, step: int) -> None:
        """Open ``folder/token_scores`` as it was after ``step`` steps of the run; at 0 there is no score.

        Raises:
            FileError: it cannot be written.
            UserError: it is not there or of another size, or the processes are on several machines, of which one need
                not see what another one writes into a file.
        """
        if world_size() != local_world_size():
            raise UserError("--loss_names: losses that keep a score of every token run on a single machine only")
        self._path, self._shape, self._step = folder / "token_scores", (captions, length), step
        self._undo, self._older = folder / "token_scores.undo", folder / "token_scores.undo.older"
        self._writes = is_main()
        on_main(self._prepare)
        self._rows_NL = np.memmap(self._path, np.uint8, "r+" if self._writes else "r", shape=self._shape)
        self._journal = os.open(self._undo, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if self._writes else -1

    def read(self, caption_B: np.ndarray) -> np.ndarray:
        """(B, L) float32 scores, NaN where there is none yet."""
        row_BL = self._rows_NL[caption_B].astype(np.float32)
        row_BL[row_BL == 0] = np.nan
        return (row_BL - 128) / 127

    def write(self, caption_B: np.ndarray, score_BL: np.ndarray) -> None:
        """Keep the scores of a step, (B, L) or fewer positions; all processes call it, with the same values."""
        self._step += 1
        if not self._writes:
            return
        caption_B, first = np.unique(caption_B, return_index=True)
        entry = _HEAD.pack(self._step, len(caption_B)) + caption_B.astype("<i8").tobytes()
        _write_all(self._journal, entry + self._rows_NL[caption_B].tobytes())
        values_BL = np.rint(score_BL[first].clip(-1, 1) * 127 + 128).astype(np.uint8)
        self._rows_NL[caption_B, : values_BL.shape[1]] = values_BL

    def saved(self) -> None:
        """The run has just written a checkpoint: what lies before the last but one need not be set back any more."""
        if self._writes:
            os.close(self._journal)
            self._undo.replace(self._older)
            self._journal = os.open(self._undo, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _prepare(self) -> None:
        captions, length = self._shape
        try:
            if self._step == 0:
                for path in (self._undo, self._older):
                    path.unlink(missing_ok=True)
                with self._path.open("wb") as file:
                    file.truncate(captions * length)
            else:
                self._set_back()
        except OSError as error:
            raise FileError(f"{self._path}: cannot be written ({error.strerror})") from None

    def _set_back(self) -> None:
        captions, length = self._shape
        found = self._path.stat().st_size if self._path.exists() else "no"
        if found != captions * length:
            raise UserError(
                f"{self._path}: has {found} bytes, {captions} captions of {length} tokens need {captions * length}; "
                "the scores of a run lie in its folder and must be moved with it"
            )
        rows_NL = np.memmap(self._path, np.uint8, "r+", shape=self._shape)
        entries = [entry for path in (self._older, self._undo) if path.exists() for entry in _entries(path, length)]
        for step, caption_B, row_BL in reversed(entries):
            if step > self._step:
                rows_NL[caption_B] = row_BL
        rows_NL.flush()
        with self._older.open("wb") as file:
            for step, caption_B, row_BL in entries:
                if step <= self._step:
                    file.write(_HEAD.pack(step, len(caption_B)) + caption_B.tobytes() + row_BL.tobytes())
        self._undo.unlink(missing_ok=True)


def _entries(path: Path, length: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Steps with the captions and rows that they overwrote. One that was cut off did not overwrite anything."""
    data = path.read_bytes()
    at = 0
    while at + _HEAD.size <= len(data):
        step, count = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + count * (8 + length) > len(data):
            return
        caption_B = np.frombuffer(data, "<i8", count, at)
        row_BL = np.frombuffer(data, np.uint8, count * length, at + 8 * count).reshape(count, length)
        yield step, caption_B, row_BL
        at += count * (8 + length)


def _write_all(number: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(number, data) :]
    except OSError as error:
        raise FileError(f"token_scores.undo: cannot be written ({error.strerror}); the run can be resumed") from None
