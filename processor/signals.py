"""Ctrl-C, SIGTERM and SIGHUP (a lost terminal): a run finishes its step, saves, and exits with a code that says why."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from utils.distributed import largest, world_size
from utils.log import leave_dead_terminal

log = logging.getLogger("descry")


class Stopped(SystemExit):  # noqa: N818
    """Training was asked to stop by a signal and has saved its state; the code is 128 + the signal."""


class Interrupted(BaseException):
    """A signal asked to stop, and what had to be finished first is."""


class Signals:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a request that the loop reads; the second one acts at once.

    Of several processes one may get the signal first, or alone: :meth:`agree` makes it the request of all.
    """

    def __init__(self) -> None:
        self.wanted: int | None = None
        self._got: int | None = None
        self._old: dict[int, Any] = {}
        self._idle = False

    def __enter__(self) -> "Signals":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._got = number
        leave_dead_terminal()
        if world_size() == 1:
            self.wanted = number
        signal.signal(number, self._old[number])
        if self._idle:
            raise Interrupted
        log.warning("%s: saving after this step; once more to stop at once", signal.Signals(number).name)

    def agree(self) -> None:
        """Ask the other processes whether they got a signal; all must call it after the same step."""
        self.wanted = largest(self._got or 0) or None

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Around work that changes nothing, as evaluation: a signal ends it at once, by :class:`Interrupted`.

        With several processes it runs to its end: the others wait for this one's share.
        """
        self._idle = world_size() == 1
        try:
            if self.wanted is None:
                yield
        finally:
            self._idle = False
        if self.wanted is not None:  # also where the exception was lost, as it is inside a destructor
            raise Interrupted

    def __exit__(self, *exc: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
