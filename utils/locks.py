"""A folder that one process works in, and that refuses a second one."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from utils import FileError, UserError

log = logging.getLogger("descry")

NAME = ".lock"
"""in a folder that is being worked in: which process does so"""
_TAKEN = (errno.EACCES, errno.EAGAIN)


@contextmanager
def held(folder: Path, what: str, remedy: str) -> Iterator[None]:
    """Work in a folder that no other process may work in meanwhile; it is made if it is not there.

    The lock is a POSIX record lock on ``FOLDER/.lock``: the system releases it when the process dies, whatever kills
    it, NFS hands it on to other hosts, and processes that this one starts do not hold it. Where a file system knows no
    locks there is a warning, and nothing is locked. A folder that was made here and is still empty at the end goes.

    Args:
        folder: what to lock.
        what: the beginning of the refusal, such as ``--run_dir logs/run``.
        remedy: its end.

    Raises:
        UserError: another process holds the folder; names the process and its host.
        FileError: the folder or the lock cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            file = _locked_file(folder, what, remedy)
        except UserError:
            raise
        except OSError as error:
            raise FileError(f"{what}: {folder} cannot be written ({error.strerror}); choose another") from None
        with file:
            try:
                yield
            finally:
                (folder / NAME).unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


def _locked_file(folder: Path, what: str, remedy: str) -> IO[str]:
    path = folder / NAME
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("r+" if path.exists() else "x+", encoding="utf-8")
        except (FileNotFoundError, FileExistsError):
            continue  # removed or made by another process in this very moment
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = file.read().strip()
            file.close()
            if error.errno in _TAKEN:
                raise UserError(f"{what}: {holder or 'another process'} is at work in {folder}; {remedy}") from None
            log.warning("%s: this file system cannot lock it (%s); start nothing else there", folder, error.strerror)
            return Path(os.devnull).open(encoding="utf-8")
        if _is_at(file, path):
            break
        file.close()  # its holder has just finished, and removed it
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()} (since {datetime.now():%Y-%m-%d %H:%M:%S})\n")
    file.flush()
    return file


def _is_at(file: IO[str], path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
