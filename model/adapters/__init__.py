"""What changes the towers without being part of them: LoRA, prompts (both freeze the towers), and PHP's parsing."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from model.adapters.lora import LoRAOptions, add_lora, merged, rank_in
from model.adapters.prompts import CoupledPrompts, PromptOptions
from model.backbones.spec import Backbone
from utils import UserError
from utils.options import opt


@dataclass(frozen=True)
class FreezeOptions:
    """How the towers are trained: which of their weights, with what dropout, and what is kept for it."""

    train_backbone: bool = opt(False, "also train the towers, which LoRA and prompts otherwise freeze")
    freeze_towers: bool = opt(
        False, "train only what is added to the towers: adapters, second embedding, cross encoder, loss heads"
    )
    freeze_patch_embedding: bool = opt(False, "do not train the layer from pixels to tokens (TBPS-CLIP)")
    text_dropout: float = opt(
        0.0, "probability of dropping an attention probability of the text tower in training", least=0, most=0.99
    )
    recompute: bool | None = opt(
        None,
        "recompute normalised inputs and perceptrons of the towers in the backward pass instead of keeping them: less "
        "memory for a third of a forward pass; default: with LoRA or prompts",
    )

    def __post_init__(self) -> None:
        if self.freeze_towers and self.train_backbone:
            raise UserError("--freeze_towers: cannot be combined with --train_backbone")


def add_adapters(backbone: Backbone, lora: LoRAOptions, prompts: PromptOptions, freeze: FreezeOptions) -> None:
    """Give the towers what the flags ask for, and freeze the rest. Raises UserError for prompts that do not fit."""
    adapted = lora.rank > 0 or prompts.depth > 0
    backbone.requires_grad_(freeze.train_backbone or not (adapted or freeze.freeze_towers))
    if freeze.freeze_patch_embedding:
        backbone.pixel_layer().requires_grad_(False)
    if freeze.text_dropout:
        backbone.drop_text(freeze.text_dropout)
    if lora.rank:
        add_lora(backbone, lora.rank, lora.alpha(lora.rank))
    if prompts.depth:
        backbone.prompts = CoupledPrompts(prompts.num_context, prompts.depth, backbone.spec)
    for block in backbone.blocks():
        block.recompute = adapted if freeze.recompute is None else freeze.recompute


def restore_adapters(backbone: Backbone, state: Mapping[str, Tensor], lora: LoRAOptions) -> dict[str, Tensor]:
    """Give the towers the prompts of a checkpoint, for testing, and return its weights with LoRA merged.

    A file that test.py exports holds the same weights: both give the same features to the last bit. Flags that ask for
    LoRA are no error where the checkpoint has none: in an exported or published one it is merged already.
    """
    if vectors := [value for key, value in state.items() if key.startswith("prompts.vectors.")]:
        backbone.prompts = CoupledPrompts(len(vectors[0]), len(vectors), backbone.spec)
    return merged(state, lora.alpha(rank_in(state)))
