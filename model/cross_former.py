"""The cross former: one cross-attention and a few CLIP blocks, shared by the mlm and itm losses."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from model.backbones.spec import BackboneSpec
from model.backbones.towers import Attention, Block, Transformer, heads_of
from model.shared_part import SharedPart
from utils.options import opt


@dataclass(frozen=True)
class CrossOptions:
    """Flags of the cross former."""

    cmt_depth: int = opt(4, "blocks of the cross-modal transformer (mlm, itm)", least=1, most=100)


class CrossFormer(SharedPart):
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
        self.transformer = Transformer(width, options.cmt_depth)
        self.ln_out = nn.LayerNorm(width)
        self.residual_std = width**-0.5 * (2 * options.cmt_depth) ** -0.5
        """standard deviation of layers that write into the residual stream, which heads on top reuse"""
        nn.init.normal_(self.attn.in_proj.weight, std=width**-0.5)
        nn.init.zeros_(self.attn.in_proj.bias)
        nn.init.normal_(self.attn.out_proj.weight, std=width**-0.5)
        self.transformer.init()

    @classmethod
    def built_for(cls, options: CrossOptions, spec: BackboneSpec) -> Self:
        """See the base class."""
        return cls(options, spec.embed_dim)

    def blocks(self) -> Iterator[nn.Module]:
        """Its transformer's."""
        yield from self.transformer.resblocks

    def forward(self, query_BLD: Tensor, other_BMD: Tensor) -> Tensor:
        """(B, L, D) query tokens over (B, M, D) tokens of the other modality to (B, L, D)."""
        x_BLD, last = self._before_last(query_BLD, other_BMD)
        return self.ln_out(last(x_BLD))

    def first(self, query_BLD: Tensor, other_BMD: Tensor) -> Tensor:
        """Position 0 of what ``forward`` gives, (B, D), without the work that the last block does for the others."""
        x_BLD, last = self._before_last(query_BLD, other_BMD)

        def finish(x_BLD: Tensor) -> Tensor:
            normed_BLD = last.ln_1(x_BLD)
            first_B1D = x_BLD[:, :1] + last.attn.cross(normed_BLD[:, :1], normed_BLD)
            return self._leave(first_B1D[:, 0], last)

        return last.saving(finish, x_BLD)

    def at(self, query_BLD: Tensor, other_BMD: Tensor, positions_K: Tensor) -> Tensor:
        """Some positions (K,), counted over B x L, of what ``forward`` gives, (K, D).

        After its attention the last block works on these alone.
        """
        x_BLD, last = self._before_last(query_BLD, other_BMD)

        def finish(x_BLD: Tensor) -> Tensor:
            mixed_BLD = last.attn.mix(last.attn.in_proj(last.ln_1(x_BLD)))
            x_KD, mixed_KD = (tensor.flatten(0, 1)[positions_K] for tensor in (x_BLD, mixed_BLD))
            return self._leave(x_KD + last.attn.out_proj(mixed_KD), last)

        return last.saving(finish, x_BLD)

    def _before_last(self, query_BLD: Tensor, other_BMD: Tensor) -> tuple[Tensor, Block]:
        *blocks, last = self.transformer.resblocks
        x_BLD = self.attn.cross(self.ln_query(query_BLD), self.ln_other(other_BMD))
        for block in blocks:
            x_BLD = block(x_BLD)
        return x_BLD, last

    def _leave(self, x_KD: Tensor, last: Block) -> Tensor:
        return self.ln_out(x_KD + last.mlp(last.ln_2(x_KD)))
