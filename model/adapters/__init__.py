"""What changes the towers without being part of CLIP: LoRA and prompts. With either, CLIP itself is frozen."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from model.adapters.lora import LoRAOptions, add_lora, merged, rank_in
from model.adapters.prompts import CoupledPrompts, PromptOptions, prompts_in
from model.backbones.clip import CLIP
from utils.options import opt


@dataclass(frozen=True)
class FreezeOptions:
    """What is trained of the towers, and what is kept for it."""

    train_backbone: bool = opt(False, "train CLIP's own weights beside LoRA and prompts, which otherwise freeze it")
    recompute: bool | None = opt(
        None,
        "compute normalised inputs and the perceptrons of the towers again in the backward pass instead of keeping "
        "them: less memory, a third of a forward pass more; default: with LoRA or prompts",
    )


def add_adapters(clip: CLIP, lora: LoRAOptions, prompts: PromptOptions, freeze: FreezeOptions) -> None:
    """Give the towers what the flags ask for, and freeze what is not to be trained.

    Raises:
        ValueError: the prompts do not fit the towers.
    """
    adapted = lora.rank > 0 or prompts.depth > 0
    clip.requires_grad_(not adapted or freeze.train_backbone)
    if lora.rank:
        add_lora(clip, lora.rank, lora.alpha(lora.rank))
    if prompts.depth:
        clip.prompts = CoupledPrompts(prompts.num_context, prompts.depth, clip.sizes)
    for tower in (clip.visual, clip.text):
        for block in tower.transformer.resblocks:
            block.recompute = adapted if freeze.recompute is None else freeze.recompute


def restore_adapters(clip: CLIP, state: Mapping[str, Tensor], lora: LoRAOptions) -> dict[str, Tensor]:
    """Make a model for a checkpoint that was trained with adapters, for testing.

    Args:
        clip: the towers; they get the prompts that the checkpoint has.
        state: weights under our names.
        lora: the scale of LoRA. That the flags ask for a LoRA which the checkpoint lacks is no error: in an exported or
            published one it is merged.

    Returns:
        the weights, with LoRA merged, as in a file that test.py exports: both give the same features to the last bit.
    """
    num_context, depth = prompts_in(state)
    if depth:
        clip.prompts = CoupledPrompts(num_context, depth, clip.sizes)
    return merged(state, lora.alpha(rank_in(state))) if rank_in(state) else dict(state)
