"""Where messages go: the terminal (through tqdm, so that progress bars stay whole) and a file in the run directory."""

import logging
import os
import sys
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from utils.distributed import is_main


class _BesideProgressBars(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        stream, text = sys.stderr if warning else sys.stdout, self.format(record)
        colour = YELLOW if warning else getattr(record, "colour", None)
        try:
            tqdm.write(paint(text, colour, stream) if colour else text, file=stream)
        except OSError:  # a closed terminal, or a pipe that nobody reads: no reason to end a run, which has a log file
            leave_dead_terminal()


class _LogFile(logging.FileHandler):
    """Reports once that it cannot be written, on a full disk for instance, and lets the program continue."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging calls it)
        if not self._said:
            tqdm.write(f"{self.baseFilename}: lines are missing ({sys.exc_info()[1]})", file=sys.stderr)
        self._said = True


def setup_logger() -> logging.Logger:
    """The ``descry`` logger, writing to the terminal; messages are kept until :func:`log_to` names a file.

    Only the main process speaks.
    """
    logger = logging.getLogger("descry")
    logger.setLevel(logging.INFO if is_main() else logging.ERROR)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        with suppress(OSError):  # of what a full disk left over
            handler.close()
    terminal = _BesideProgressBars()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(terminal)
    logger.addHandler(MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False))
    return logger


def log_to(path: Path) -> None:
    """Append to a file, beginning with the messages since :func:`setup_logger`; in the main process."""
    if not is_main():
        return
    logger = logging.getLogger("descry")
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for kept in [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]:
        kept.setTarget(file)
        kept.flush()
        logger.removeHandler(kept)
    logger.addHandler(file)


def leave_dead_terminal() -> None:
    """Let what is still written to a terminal or pipe that is gone vanish; an error would end the program."""
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
        except (OSError, ValueError):  # no file: a notebook's, or a test's
            continue
        try:
            stream.flush()
            os.write(number, b"")
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, number)
            os.close(nothing)


def hide_bar() -> bool | None:
    """What tqdm takes as ``disable``: no bar where there is no terminal, nor in any but the main process."""
    return None if is_main() else True


RED, YELLOW, BOLD = "31", "33", "1"
"""ANSI codes"""

NEXT = {"colour": BOLD}
"""``extra`` of a log line that tells the user what to do next"""


def paint(text: str, code: str, stream: TextIO) -> str:
    """The text in a colour if the stream is a terminal and the user has not set NO_COLOR (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\033[{code}m{text}\033[0m"
