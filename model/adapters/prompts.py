"""Coupled prompts: learned vectors among the tokens of both towers, the image's computed from the text's.

The deep prompting of MaPLe (Khattak et al., CVPR 2023, section 3.2) as ECCL uses it.

Shape letters: P prompts, W width of the text tower, V width of the image tower.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.backbones.spec import BackboneSpec
from utils import UserError
from utils.options import opt


@dataclass(frozen=True)
class PromptOptions:
    """Flags of the prompts."""

    num_context: int = opt(4, "prompts in each tower (with --prompt_depth)", least=1)
    prompt_depth: int | None = opt(
        None,
        "how many of the first blocks of both towers get coupled prompts of their own; 0 for none. Freezes CLIP",
        least=0,
    )

    @property
    def depth(self) -> int:
        """0 without prompts."""
        return self.prompt_depth or 0


class CoupledPrompts(nn.Module):
    """Prompts of the first blocks of both towers."""

    roles: ClassVar[dict[str, str]] = {"": "prompt"}

    def __init__(self, num_context: int, depth: int, spec: BackboneSpec) -> None:
        """Raises UserError where the towers take no prompts or have fewer blocks, or the context no room for a word."""
        super().__init__()
        if not spec.prompt_blocks:
            raise UserError(f"--prompt_depth {depth}: this backbone takes no prompts; leave the flag out")
        if depth > spec.prompt_blocks:
            raise UserError(f"--prompt_depth {depth}: the towers have only {spec.prompt_blocks} blocks")
        if num_context > spec.context_length - 3:
            raise UserError(
                f"--num_context {num_context}: the text tower takes {spec.context_length} tokens, which must include "
                "start, end and a word"
            )
        shape = (num_context, spec.text_width)
        self.vectors = nn.ParameterList(nn.Parameter(0.02 * torch.randn(shape)) for _ in range(depth))
        self.to_image = nn.ModuleList(nn.Linear(spec.text_width, spec.image_width) for _ in range(depth))

    def text(self) -> tuple[Tensor, ...]:
        """(P, W) for each of the first blocks of the text tower."""
        return tuple(self.vectors)

    def image(self) -> tuple[Tensor, ...]:
        """(P, V) for each of the first blocks of the image tower."""
        return tuple(linear(vectors) for linear, vectors in zip(self.to_image, self.vectors, strict=True))
