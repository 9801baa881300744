"""PHP: pedestrian-relevant hierarchical parsing, which adds a summary of parts to the pooled feature of a tower.

CRFM gathers tokens into a few learnable parts; EFP refines them with mixtures of experts. Both modalities share both.
Shape letters: B batch, L tokens, P parts, D embedding, E experts, N blocks, M modalities (image, text).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.adapters.experts import MixtureOfExperts, Routed
from model.backbones.spec import Encoded
from model.backbones.towers import Block
from model.checkpoints.archives import layers_in
from utils import UserError
from utils.distributed import all_sum
from utils.options import opt

VARIANTS = {"base": (), "crfm": ("crfm",), "efp": ("efp",), "full": ("crfm", "efp")}
"""value of ``--php_variant`` to the stages between tokens and feature, in order"""
MODALITIES = ("image", "text")
LEAK = (
    "--php_attention batch: every feature depends on the other samples of its batch, so images (and captions) of one "
    "person that are encoded together leak into each other, and the scores change with --test_batch_size; comparable "
    "scores need --php_attention tokens"
)
"""said of a model that attends across the batch"""


@dataclass(frozen=True)
class ParsingOptions:
    """Flags of PHP's parsing; it is on with the loss aux or with ``--php_variant``."""

    php_variant: str | None = opt(
        None,
        "stages of PHP: none, part tokens (crfm), experts on all tokens (efp), experts on parts [full with the loss "
        "aux, else without PHP]",
        choices=tuple(VARIANTS),
    )
    cnum: int = opt(9, "part tokens of PHP's crfm", least=1, most=1000)
    num_experts: int = opt(4, "experts in each mixture", least=1, most=1000)
    topk: int = opt(2, "experts that each token goes to", least=1)
    reduction: int = opt(8, "embedding width divided by an expert's width", least=1)
    moe_layers: int = opt(4, "blocks of PHP's efp", least=1, most=100)
    moe_heads: int = opt(8, "attention heads of PHP's efp", least=1)
    php_attention: str | None = opt(
        None,
        "what efp attends over: the tokens of a sample, or as published the other samples of the batch, so that scores "
        "depend on its composition [tokens; batch for a checkpoint with published names]",
        choices=("tokens", "batch"),
    )


class CRFM(nn.Module):
    """Cross-modal part tokens: each attends over the tokens of one image or caption."""

    def __init__(self, width: int, parts: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.part_tokens = nn.Parameter(torch.empty(parts, width))
        self.feed = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )
        nn.init.kaiming_normal_(self.part_tokens)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Tokens (B, L, D) to parts (B, P, D)."""
        weight_BPL = (self.part_tokens @ x_BLD.transpose(1, 2)).softmax(dim=-1)
        return self.feed(weight_BPL @ x_BLD / x_BLD.shape[-1] ** 0.5)


class ExpertBlock(Block):
    """CLIP's residual block with a mixture of experts beside its MLP."""

    def __init__(self, width: int, options: ParsingOptions) -> None:
        super().__init__(width, options.moe_heads)
        self.over_batch = options.php_attention == "batch"
        self.ln_3 = nn.LayerNorm(width)
        self.moe = MixtureOfExperts(width, options.reduction, options.num_experts, options.topk)
        self.task = nn.Parameter(torch.randn(width))
        nn.init.xavier_uniform_(self.attn.in_proj.weight)
        nn.init.zeros_(self.attn.in_proj.bias)

    def forward(self, x_BLD: Tensor) -> Routed:
        """(B, L, D) to (B, L, D), with the routing of this block."""
        if self.keep_input_only and torch.is_grad_enabled():  # the experts' dropout draws the same numbers again
            return Routed(*checkpoint(self._with_routing, x_BLD, use_reentrant=False))
        return self._with_routing(x_BLD)

    def _with_routing(self, x_BLD: Tensor) -> Routed:
        normed_BLD = self.ln_1(x_BLD)
        if self.over_batch:  # the published layout: position l attends over position l of every sample in the batch
            x_BLD = x_BLD + self.attn(normed_BLD.transpose(0, 1)).transpose(0, 1)
        else:
            x_BLD = x_BLD + self.attn(normed_BLD)
        routed = self.moe(self.ln_3(x_BLD), self.task)
        return routed._replace(out=x_BLD + self.mlp(self.ln_2(x_BLD)) + routed.out)


class EFP(nn.Module):
    """A stack of expert blocks."""

    def __init__(self, width: int, options: ParsingOptions) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ExpertBlock(width, options) for _ in range(options.moe_layers))

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, D) to tokens of the same shape, and the routing (N, 2, E) of all blocks."""
        routing = []
        for block in self.resblocks:
            x_BLD, routing_2E = block(x_BLD)
            routing.append(routing_2E)
        return x_BLD, torch.stack(routing)


class Parsing(nn.Module):
    """feature = pooled feature + mean over what the stages make of the tokens."""

    def __init__(self, options: ParsingOptions, width: int) -> None:
        """``full`` where no variant is named. Raises UserError where heads or reduction do not suit the width (D)."""
        super().__init__()
        self.stages = VARIANTS[options.php_variant or "full"]  # with any, a caption's feature depends on its padding
        self.over_batch = options.php_attention == "batch" and "efp" in self.stages
        self.crfm = CRFM(width, options.cnum) if "crfm" in self.stages else None
        self.efp = None
        if "efp" in self.stages:
            if width % options.moe_heads:
                raise UserError(f"--moe_heads {options.moe_heads}: does not divide the embedding width {width}")
            if options.reduction > width:
                raise UserError(f"--reduction {options.reduction}: above the embedding width {width}")
            self.efp = EFP(width, options)
            used_MNE = torch.zeros(len(MODALITIES), options.moe_layers, options.num_experts, dtype=torch.long)
            self.register_buffer("used_MNE", used_MNE, persistent=False)
            """tokens that chose each expert in evaluation; in no checkpoint"""

    def blocks(self) -> Iterator[nn.Module]:
        """Those of EFP."""
        if self.efp is not None:
            yield from self.efp.resblocks

    def forward(self, encoded: Encoded, modality: str) -> Encoded:
        """A tower's output with the parts' summary added to the pooled feature, and the routing of its tokens.

        ``encoded`` has all text tokens, padding included, or image tokens with the class token first.
        """
        x_BLD = encoded.tokens[:, 1:] if modality == "image" else encoded.tokens
        if self.crfm is not None:
            x_BLD = self.crfm(x_BLD)
        if self.efp is not None:
            x_BLD, routing_N2E = self.efp(x_BLD)
            encoded = encoded._replace(routing=routing_N2E)
            if not self.training:
                self.used_MNE[MODALITIES.index(modality)] += routing_N2E[:, 1].long()
        return encoded._replace(pooled=encoded.pooled + x_BLD.mean(dim=1)) if self.stages else encoded

    def count(self, routing: Sequence[Tensor]) -> None:
        """Add the routing (N, 2, E) of training batches to the number of tokens that each expert has seen."""
        if self.efp is not None:
            for routing_N2E in routing:
                for block, choices_E in zip(self.efp.resblocks, routing_N2E[:, 1].long(), strict=True):
                    block.moe.expert_count += choices_E

    def expert_use(self) -> dict[str, Tensor]:
        """Counts (N, E) of the tokens that chose each expert: per modality in evaluation, and in training if known.

        All processes must call it: each has counted what it has encoded.
        """
        if self.efp is None:
            return {}
        use = dict(zip(MODALITIES, all_sum(self.used_MNE), strict=True))
        trained_NE = torch.stack([block.moe.expert_count for block in self.efp.resblocks])
        return {**use, "training": trained_NE} if trained_NE.any() else use


def fit_options(options: ParsingOptions, state: Mapping[str, Tensor], source: str) -> ParsingOptions:
    """A run's flags with the variant and every size that its weights determine; heads and topk stay.

    ``state`` has the weights below ``parsing.``, without that prefix. Raises UserError where ``--php_variant`` needs
    others, which names the checkpoint as ``source``.
    """
    there = tuple(stage for stage in VARIANTS["full"] if any(key.startswith(f"{stage}.") for key in state))
    variant = options.php_variant or next(name for name, stages in VARIANTS.items() if stages == there)
    missing = [stage for stage in VARIANTS[variant] if stage not in there]
    if missing:
        choices = ", ".join(name for name, stages in VARIANTS.items() if set(stages) <= set(there))
        raise UserError(f"--php_variant {variant}: no {missing[0]} weights in {source}; choose from {choices}")
    found = {}
    if "crfm" in there:
        found["cnum"] = len(state["crfm.part_tokens"])
    if "efp" in there:
        experts, hidden, width = state["efp.resblocks.0.moe.experts.down.weight"].shape
        layers = layers_in(state, "efp.resblocks.")
        found |= {"num_experts": experts, "reduction": width // hidden, "moe_layers": layers}
    return replace(options, php_variant=variant, **found)
