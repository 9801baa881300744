"""Checkpoint files: read without executing code, written so that a crash never destroys the one before."""

import os
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.distributed import on_main


def read_torch_file(path: Path) -> Any:
    """The content of a file written by ``torch.save``, tensors on the CPU; no code in it is run.

    Raises:
        ValueError: names the file and whether it is absent, torn or holds objects that only code could restore.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a checkpoint of plain tensors and numbers ({reason})") from None
    except (RuntimeError, EOFError, OSError, KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        shown = f" ({reason})" if " " in reason else ""  # for foreign files PyTorch names a bare number or key
        raise ValueError(f"{path}: damaged or not a checkpoint{shown}") from None


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write beside the target, flush to disk, then rename: the file is always either the old or the new one.

    The main process writes, the others wait for it.
    """
    on_main(lambda: _write(path, content))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        raise OSError(f"{path}: cannot be written ({error}); the previous file, if any, is untouched") from error
    finally:
        part.unlink(missing_ok=True)


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
