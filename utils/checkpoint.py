"""Checkpoint files: read without executing code, checked for damage, written so that a crash destroys no good one."""

import logging
import pickle
import random
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.distributed import on_main
from utils.files import before, first_line, replacing

log = logging.getLogger("descry")


def read_torch_file(path: Path) -> Any:
    """The content of a file written by ``torch.save``, tensors on the CPU; no code in it is run.

    Raises:
        ValueError: names the file and whether it is absent, torn, changed since it was written, or holds objects that
            only code could restore.
    """
    if not path.is_file():  # asked first, because opening a pipe would wait for ever
        raise ValueError(f"{path}: {'not a file' if path.exists() else 'no such checkpoint'}")
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: not a checkpoint of plain tensors and numbers ({first_line(error)})") from None
    except Exception as error:  # the readers run into nearly anything in a file that torch.save did not write
        reason = first_line(error)
        shown = f" ({reason})" if " " in reason else ""  # for foreign files PyTorch names a bare number or key
        raise ValueError(f"{path}: damaged or not a checkpoint{shown}") from None


def _check_archive(path: Path) -> None:
    """Compare every part of a zip file, which is what ``torch.save`` writes, with its stored checksum.

    ``torch.load`` leaves these checksums out, and would take a flipped bit in a weight for the weight. This costs a
    third of a second per GB. Files in the format of before 2020 carry no checksums, and pass.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"part {part.filename} is compressed, as torch.save never does")
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"part {bad} is not what was written")


def read_last(path: Path) -> Any | None:
    """The content of a ``last.pth``; where that is missing or damaged, of the one before, with a warning.

    A damaged file is put aside as ``last.damaged.pth``: the next write must not let it take the place of the good one.

    Returns:
        None where the run was killed before it had saved anything, so that it has to begin again.

    Raises:
        ValueError: there is no good one.
    """
    older = before(path)
    if path.name == "last.pth" and not any(file.exists() for file in (path, older, path.with_name("best.pth"))):
        log.warning("%s: the run had not saved anything yet, and begins again", path)
        return None
    try:
        return read_torch_file(path)
    except ValueError as error:
        if not older.exists():
            raise
        try:
            content = read_torch_file(older)
        except ValueError as second:
            raise ValueError(f"{error}; and the one before it, {second}") from None
        log.warning("%s; going on from the one before it, %s", error, older)
        with suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.stem}.damaged{path.suffix}"))
        return content


def write_checkpoint(path: Path, content: Mapping[str, Any], keep: bool = False) -> None:
    """Write a checkpoint through :func:`replacing`. The main process does so, the others wait for it.

    Raises:
        OSError: it cannot be written, on a full disk for instance; the file that was there is untouched.
    """

    def write() -> None:
        with replacing(path, keep) as file:
            torch.save(dict(content), file)

    on_main(write)


def set_seed(seed: int) -> None:
    """Seed every generator that training draws from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """State of PyTorch's generators (dropout, negative sampling); choices about data need none."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Undo :func:`random_states`; states of CUDA devices that are not there are left out."""
    torch.set_rng_state(states["cpu"])
    for number, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, number)
