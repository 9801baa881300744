"""Files that others depend on, written so that a crash at any moment leaves a whole one; locks; and yaml."""

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, ClassVar

import yaml

from utils import FileError, UserError


@contextmanager
def replacing(path: Path, keep: bool = False) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once it is complete and on the disk.

    Killed at any moment, this leaves ``path`` as it was or as it is to be.

    Args:
        path: what to replace.
        keep: whether the file that was there stays, under the name that :func:`before` gives.

    Raises:
        FileError: it cannot be written; the file that was there is untouched.
    """
    part = path.with_name(f".{path.name}.part")  # the same name every time, so that a killed process leaves at most one
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            _keep(path)
        part.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        reason = _system_error(error) or first_line(error)
        raise FileError(f"{path}: cannot be written ({reason}); the previous file, if any, is untouched") from error
    finally:
        with suppress(OSError):  # gone where it took its place, impossible where the name is too long
            part.unlink()


@contextmanager
def new_folder(path: Path, flag: str) -> Iterator[Path]:
    """A folder beside ``path``, to be filled, that gets this name once it is complete; if that fails nothing is left.

    Raises:
        UserError: there is something at ``path`` already, or it cannot be written; names the ``flag``.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{flag} {path}: exists already; name a new folder")
    part = path.with_name(f".{path.name}.part")  # the same name every time: what a killed process left is cleared away
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        yield part
        part.rename(path)
        _sync_folder(path.parent)
    except UserError:
        raise
    except OSError as error:
        reason = _system_error(error) or first_line(error)
        raise UserError(f"{flag} {path}: cannot be written ({reason}); name another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text, or make it; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def _system_error(error: BaseException | None) -> str | None:
    """What the system said, where it is behind an error: torch.save reports a full disk as an error of its own."""
    while error is not None and not getattr(error, "strerror", None):
        error = error.__context__
    return error and error.strerror


def _keep(path: Path) -> None:
    """Give the file a second name, so that there is no moment at which it has none."""
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(path)
    except OSError:  # a file system without hard links: for a moment there is only the one before
        link = path
    link.replace(before(path))
    link.unlink(missing_ok=True)  # renaming a file to another of its names does nothing


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where the system can: otherwise a power failure may undo it."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def before(path: Path) -> Path:
    """Where :func:`replacing` keeps the file that it replaces: last.previous.pth beside last.pth."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def file_sha256(path: Path) -> str:
    """Hex digest of a file; a fraction of a second for weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: Exception) -> str:
    """What an exception says, without what PyTorch adds for its own developers."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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


LOCK = ".lock"
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
                (folder / LOCK).unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


def _locked_file(folder: Path, what: str, remedy: str) -> IO[str]:
    path = folder / LOCK
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


WHOLE = r"[-+]?(0|[1-9][0-9]*)"
DECIMAL = r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"
"""how numbers are spelt; Python would also take 1_0, and 010 for 10, which YAML 1.1 takes for 8"""


class _PlainLoader(yaml.SafeLoader):
    """Safe yaml plus the one tag that argparse-era run directories carry: ``!!python/tuple``, read as a list.

    Of plain scalars only null, true, false and decimal numbers are more than a text, as in YAML 1.2: PyYAML's rules
    are those of 1.1, where 1:30 is 90, 010 is 8 and on is true.
    """

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse ``<<``, of which nested ones multiply until the memory is full, and keys that are there twice."""
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if key.value == "<<":
                raise yaml.constructor.ConstructorError(problem="'<<' is not read", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"key {key.value!r} is there twice, first in line {seen[key.value].line + 1}"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = key.start_mark


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", WHOLE, list("-+0123456789")),
    (
        "float",
        rf"{DECIMAL}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)

_PlainLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat yaml file, without executing anything.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)  # noqa: S506
    except FileNotFoundError:
        raise UserError(f"--config_file {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config_file {path}: cannot be read ({error})") from None
    except Exception as error:  # PyYAML lets through what int, date or base64 say to what it has recognised as theirs
        first = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"--config_file {path}: not plain yaml ({first})") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"--config_file {path}: expected 'flag: value' lines, found {type(content).__name__}")
    return content
