"""Low-rank adaptation of the towers (Hu et al., ICLR 2022): frozen weight W plus ``alpha / r * B A``.

loralib gives the parameters, their initialisation and the scale; weights are never merged while the model lives
(``merge_weights=False``). The forward pass here takes the low-rank part first: where a block recomputes its input in
the backward pass (``towers.recomputed``), the product with W then need not be repeated. Nor does it form the full B A
as loralib's fused layer does, which takes 2.5 times as long on a CPU (197 tokens of width 768, forward and backward).

Shape letters: I inputs, O outputs, r rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import loralib
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.spec import Backbone
from utils import UserError
from utils.options import opt


@dataclass(frozen=True)
class LoRAOptions:
    """Flags of LoRA."""

    lora_r: int | None = opt(
        None,
        "rank of LoRA in both towers, 0 for none; default: 4 with --lora_alpha, otherwise 0. Freezes CLIP",
        least=0,
    )
    lora_alpha: float | None = opt(
        None, "LoRA's scale times its rank; turns LoRA on; default: the rank (scale 1)", above=0
    )

    @property
    def rank(self) -> int:
        """0 without LoRA."""
        if self.lora_r is None:
            return 0 if self.lora_alpha is None else 4  # the published program's rank whenever --lora_alpha is given
        return self.lora_r

    def alpha(self, rank: int) -> float:
        """Scale times rank."""
        return rank if self.lora_alpha is None else self.lora_alpha


class LoRALinear(loralib.MergedLinear):
    """A linear layer of one or more parts (3: queries, keys and values), each with a LoRA of its own.

    weight (parts O, I), lora_A (parts r, I), lora_B (parts O, r): the parts stand below each other.
    """

    roles: ClassVar[dict[str, str]] = {"lora_A": "lora", "lora_B": "lora"}

    def __init__(self, base: nn.Linear, rank: int, alpha: float, parts: int = 1) -> None:
        sizes = base.in_features, base.out_features
        super().__init__(*sizes, r=rank, lora_alpha=alpha, enable_lora=[True] * parts, merge_weights=False)
        self.parts, self.weight, self.bias = parts, base.weight, base.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., parts O)."""
        # all parts in one product
        high = torch.block_diag(*self.lora_B.chunk(self.parts))
        low = x @ self.lora_A.T @ high.T
        return torch.add(F.linear(x, self.weight, self.bias), low, alpha=self.scaling)


def add_lora(backbone: Backbone, rank: int, alpha: float) -> None:
    """Give every linear layer in the blocks of both towers a LoRA (fused q, k and v one each); weights are kept.

    Raises UserError where the rank is above that of a layer.
    """
    for block in backbone.blocks():
        linears = [(name, layer) for name, layer in block.named_modules() if isinstance(layer, nn.Linear)]
        for name, layer in linears:
            owner, _, attribute = name.rpartition(".")
            parts = 3 if attribute == "in_proj" else 1
            if rank > (most := min(layer.in_features, layer.out_features // parts)):
                raise UserError(
                    f"--lora_r {rank}: at most {most}, the rank that a layer ({name}) of the towers can have"
                )
            adapted = LoRALinear(layer, rank, alpha, parts)
            setattr(block.get_submodule(owner), attribute, adapted)


def rank_in(state: Mapping[str, Tensor]) -> int:
    """The rank of the LoRA in a checkpoint with our names, 0 without any."""
    return next((value.shape[1] for key, value in state.items() if key.endswith(".lora_B")), 0)


def merged(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """A checkpoint's weights under our names with LoRA, of scale ``alpha / rank``, added to them and left out."""
    plain = {key: value for key, value in state.items() if not key.endswith((".lora_A", ".lora_B"))}
    for key, low_rI in state.items():
        if key.endswith(".lora_A"):
            layer = key.removesuffix(".lora_A")
            high_Or = state[f"{layer}.lora_B"]
            rank = high_Or.shape[1]
            delta_OI = torch.block_diag(*high_Or.chunk(len(low_rI) // rank)) @ low_rI
            plain[f"{layer}.weight"] = plain[f"{layer}.weight"] + alpha / rank * delta_OI
    return plain
