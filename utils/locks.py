"""One writer at a time: a lock between processes that ends with its holder."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("descry")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file, which the system releases with the process; wait, and say so, while another holds it."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is building %s; waiting for it", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
