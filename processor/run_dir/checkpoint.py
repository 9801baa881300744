"""Checkpoint files: read without executing code, checked for damage, written so that a crash destroys no good one."""

import logging
import random
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoints.archives import read_torch_file
from model.retriever import Retriever
from utils import UserError
from utils.distributed import on_main
from utils.files import before, replacing

log = logging.getLogger("descry")


def read_last(path: Path) -> Any | None:
    """The content of a ``last.pth``; where that is missing or damaged, of the one before, with a warning.

    A damaged file is put aside as ``last.damaged.pth``: the next write must not let it take the place of the good one.

    Returns:
        None where the run was killed before it had saved anything, so that it has to begin again.

    Raises:
        UserError: there is no good one.
    """
    older = before(path)
    if path.name == "last.pth" and not any(file.exists() for file in (path, older, path.with_name("best.pth"))):
        log.warning("%s: the run had not saved anything yet and starts again", path)
        return None
    try:
        return read_torch_file(path)
    except UserError as error:
        if not older.exists():
            raise
        try:
            content = read_torch_file(older)
        except UserError as second:
            raise UserError(f"{error}; and the one before it, {second}") from None
        log.warning("%s; resuming from the one before it, %s", error, older)
        with suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.stem}.damaged{path.suffix}"))
        return content


def write_checkpoint(path: Path, content: Mapping[str, Any], keep: bool = False) -> None:
    """Write a checkpoint through :func:`replacing`. The main process does so, the others wait for it.

    Raises:
        FileError: it cannot be written, on a full disk for instance; the file that was there is untouched.
    """

    def write() -> None:
        with replacing(path, keep) as file:
            torch.save(dict(content), file)

    on_main(write)


def export_merged(model: Retriever, path: Path) -> None:
    """Write the towers of a restored model, whose LoRA is merged, as a run without LoRA would.

    Prompts cannot be merged and go along.
    """
    write_checkpoint(path, {"model": model.state_dict()})
    if model.backbone.prompts is not None:
        kept = f"prompts cannot be merged and are kept as {model.backbone.name}.prompts.*"
        log.warning("--export_merged %s: %s; a program that does not know them computes different features", path, kept)
    log.info("towers with LoRA merged: %s", path)


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
