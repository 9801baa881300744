"""Low-rank adaptation of the towers (Hu et al., ICLR 2022): frozen weight W plus ``alpha / r * B A``.

loralib gives the parameters, their initialisation and the scale; its weights are never merged while the model lives
(``merge_weights=False``). Both layers here change the order of loralib's forward pass, low-rank part first: where a
block recomputes its input in the backward pass (``towers.recomputed``), the product with W then need not be
repeated. loralib's fused layer also forms the full B A in every pass, which takes 2.5 times as long on a CPU
(197 tokens of width 768, forward and backward) as the factors one after the other.

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

PUBLISHED_RANK = 4
"""the rank that the published program has whenever --lora_alpha is given"""


@dataclass(frozen=True)
class LoRAOptions:
    """Flags of LoRA."""

    lora_r: int | None = opt(
        None, "rank of LoRA in both towers, 0 for none; default: 4 with --lora_alpha, otherwise 0. CLIP is frozen then"
    )
    lora_alpha: float | None = opt(None, "LoRA's scale times its rank; turns LoRA on; default: the rank (scale 1)")

    def __post_init__(self) -> None:
        if self.lora_r is not None and self.lora_r < 0:
            raise UserError(f"--lora_r {self.lora_r}: expected 0 (no LoRA) or more")
        if self.lora_alpha is not None and not self.lora_alpha > 0:
            raise UserError(f"--lora_alpha {self.lora_alpha:g}: expected a number above 0 (--lora_r 0 means no LoRA)")

    @property
    def rank(self) -> int:
        """0 without LoRA."""
        if self.lora_r is None:
            return 0 if self.lora_alpha is None else PUBLISHED_RANK
        return self.lora_r

    def alpha(self, rank: int) -> float:
        """Scale times rank."""
        return rank if self.lora_alpha is None else self.lora_alpha


class LoRALinear(loralib.Linear):
    """A linear layer with LoRA: weight (O, I), lora_A (r, I), lora_B (O, r)."""

    roles: ClassVar[dict[str, str]] = {"lora_A": "lora", "lora_B": "lora"}

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base.in_features, base.out_features, r=rank, lora_alpha=alpha, merge_weights=False)
        self.weight, self.bias = base.weight, base.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        low = x @ self.lora_A.T @ self.lora_B.T
        return torch.add(F.linear(x, self.weight, self.bias), low, alpha=self.scaling)


class LoRAQKV(loralib.MergedLinear):
    """A fused projection to queries, keys and values, each with a LoRA of its own.

    weight (3 O, I), lora_A (3 r, I), lora_B (3 O, r): the parts of q, k and v stand below each other.
    """

    roles: ClassVar[dict[str, str]] = {"lora_A": "lora", "lora_B": "lora"}

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(
            *(base.in_features, base.out_features, rank, alpha), enable_lora=[True] * 3, merge_weights=False
        )
        self.weight, self.bias = base.weight, base.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., 3 O)."""
        # all three in one product
        high = torch.block_diag(*self.lora_B.chunk(3))
        low = x @ self.lora_A.T @ high.T
        return torch.add(F.linear(x, self.weight, self.bias), low, alpha=self.scaling)


def add_lora(backbone: Backbone, rank: int, alpha: float) -> None:
    """Give every linear layer in the blocks of both towers a LoRA (fused q, k and v one each); weights are kept."""
    for block in backbone.blocks():
        linears = [(name, layer) for name, layer in block.named_modules() if isinstance(layer, nn.Linear)]
        for name, layer in linears:
            owner, _, attribute = name.rpartition(".")
            adapted = LoRAQKV if attribute == "in_proj" else LoRALinear
            setattr(block.get_submodule(owner), attribute, adapted(layer, rank, alpha))


def rank_in(state: Mapping[str, Tensor]) -> int:
    """The rank of the LoRA in a checkpoint with our names, 0 without any."""
    ranks = [value.shape[1] for key, value in state.items() if key.endswith(".lora_B")]
    return ranks[0] if ranks else 0


def merged(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """A checkpoint with LoRA added to its weights, under the names that a model without LoRA has.

    Args:
        state: weights under our names.
        alpha: LoRA's scale times its rank.
    """
    plain = {key: value for key, value in state.items() if not key.endswith((".lora_A", ".lora_B"))}
    for key, low_rI in state.items():
        if key.endswith(".lora_A"):
            layer = key.removesuffix(".lora_A")
            high_Or = state[f"{layer}.lora_B"]
            rank = high_Or.shape[1]
            delta_OI = torch.block_diag(*high_Or.chunk(len(low_rI) // rank)) @ low_rI
            plain[f"{layer}.weight"] = plain[f"{layer}.weight"] + alpha / rank * delta_OI
    return plain
