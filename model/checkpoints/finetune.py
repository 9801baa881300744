"""Starting from the weights of an earlier run instead of CLIP's alone."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.adapters.lora import rank_in
from model.backbones.positions import stretch_positions
from model.checkpoints.archives import read_torch_file, state_dict_in
from model.checkpoints.published import our_names
from model.retriever import Retriever
from utils import UserError
from utils.options import opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class FinetuneOptions:
    """Flags of the start."""

    finetune: str = opt("", "checkpoint to start from, ours or a published one with IRRA's or ECCL's names")

    @property
    def path(self) -> Path | None:
        """The checkpoint, None without."""
        return Path(self.finetune) if self.finetune else None


def finetune(model: Retriever, path: Path, text_stretch: str | None = None) -> None:
    """Start from an earlier run's checkpoint, and log what was used of it. Raises UserError where it does not fit.

    ``text_stretch``: how its table of text positions is stretched where the model's is longer.
    """
    state, unknown = our_names(state_dict_in(read_torch_file(path), path))
    positions, length = f"{model.backbone.name}.text.positional_embedding", model.backbone.spec.context_length
    if text_stretch is not None and positions in state and len(state[positions]) < length:
        state[positions] = stretch_positions(state[positions], length, text_stretch)
    used, unused = start_from(model, state, str(path))
    log.info("--finetune %s: used %s; not used: %s", path, ", ".join(used), ", ".join([*unused, *unknown]) or "nothing")


@torch.no_grad()
def start_from(model: Retriever, state: Mapping[str, Tensor], source: str) -> tuple[list[str], list[str]]:
    """Copy every parameter that the checkpoint and the model both have, in the same shape, and batch statistics.

    The towers must be complete, or a UserError names ``source`` and the remedy. Other parts may be missing or differ (a
    classifier over another data set's identities). Memory banks stay: they belong to the training pairs.

    Returns:
        names of the modules that were used, and of those in the checkpoint that were not.
    """
    parameters = dict(model.named_parameters())
    if model.token_selection is not None:  # its weights mean nothing without the statistics they were trained with
        parameters |= dict(model.token_selection.named_buffers(prefix="token_selection"))
    if rank_in(state) and not rank_in(parameters):
        raise UserError(
            f"--finetune {source}: its LoRA of rank {rank_in(state)} is not merged; write a merged checkpoint with "
            "test.py --export_merged FILE, or give --lora_r"
        )
    fits = {
        key
        for key, value in state.items()
        if key in parameters
        and parameters[key].shape == value.shape
        and parameters[key].is_floating_point() == value.is_floating_point()
    }
    adapters = re.compile(r"\.prompts\.|\.lora_[AB]$")
    towers = [key for key in parameters if key.startswith(f"{model.backbone.name}.") and not adapters.search(key)]
    if wrong := [key for key in towers if key not in fits]:
        first = wrong[0]
        there = f"{state[first].dtype} {tuple(state[first].shape)} there" if first in state else "not there"
        raise UserError(
            f"--finetune {source}: {len(wrong)} of {len(towers)} weights of the towers do not fit, for example {first} "
            f"({there}, {tuple(parameters[first].shape)} here); give the run's --pretrain_choice, --img_size, "
            "--stride_size and --text_length"
        )
    for key in fits:
        parameters[key].copy_(state[key])
    return _modules(fits), _modules(key for key in state if key not in fits)


def _modules(keys: Iterable[str]) -> list[str]:
    """clip.visual, heads.id, ... with the adapters apart, each once."""
    names = ("LoRA" if key.endswith((".lora_A", ".lora_B")) else ".".join(key.split(".")[:2]) for key in keys)
    return sorted(set(names))
