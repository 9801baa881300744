"""The cross former: one cross-attention and a few CLIP blocks, shared by the mlm and itm losses."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from model.clip import Attention, Transformer, heads_of
from utils.options import opt


@dataclass(frozen=True)
class CrossOptions:
    """Flags of the cross former."""

    cmt_depth: int = opt(4, "blocks of the cross-modal transformer (mlm, itm)")

    def __post_init__(self) -> None:
        if self.cmt_depth < 1:
            raise ValueError(f"--cmt_depth {self.cmt_depth}: expected at least 1 block")


class CrossFormer(nn.Module):
    """Text tokens look at image tokens once, then at each other (IRRA, section 3.2).

    Self-attention here has no mask: padding takes part, as in the published model.
    """

    Options: ClassVar[type] = CrossOptions
    roles: ClassVar[dict[str, str]] = {"attn": "cross", "transformer": "cross"}

    def __init__(self, options: CrossOptions, width: int) -> None:
        super().__init__()
        self.ln_query = nn.LayerNorm(width)
        self.ln_other = nn.LayerNorm(width)
        self.attn = Attention(width, heads_of(width))
        self.transformer = Transformer(width, options.cmt_depth, heads_of(width))
        self.ln_out = nn.LayerNorm(width)
        self.residual_std = width**-0.5 * (2 * options.cmt_depth) ** -0.5
        """standard deviation of layers that write into the residual stream, which heads on top reuse"""
        nn.init.normal_(self.attn.in_proj.weight, std=width**-0.5)
        nn.init.zeros_(self.attn.in_proj.bias)
        nn.init.normal_(self.attn.out_proj.weight, std=width**-0.5)
        self.transformer.init(options.cmt_depth)

    def forward(self, query_BLD: Tensor, other_BMD: Tensor) -> Tensor:
        """(B, L, D) query tokens over (B, M, D) tokens of the other modality to (B, L, D)."""
        x_BLD = self.attn.cross(self.ln_query(query_BLD), self.ln_other(other_BMD))
        return self.ln_out(self.transformer(x_BLD))

    def first(self, query_BLD: Tensor, other_BMD: Tensor) -> Tensor:
        """Position 0 of what ``forward`` gives, (B, D), without the work that the last block does for the others."""
        x_BLD = self.attn.cross(self.ln_query(query_BLD), self.ln_other(other_BMD))
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            x_BLD = block(x_BLD)
        normed_BLD = last.ln_1(x_BLD)
        first_B1D = x_BLD[:, :1] + last.attn.cross(normed_BLD[:, :1], normed_BLD)
        first_B1D = first_B1D + last.mlp(last.ln_2(first_B1D))
        return self.ln_out(first_B1D[:, 0])
