"""RDE's token selection embedding (TSE; Qin et al., CVPR 2024, section 3.2): a second embedding of an image or caption.

It is made of the tokens that the pooled token attends to most. Each modality has layers of its own.
Shape letters: B batch, L tokens, K chosen tokens, D joint embedding, E second embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.backbones.spec import Backbone, Encoded, full_precision
from utils import UserError
from utils.distributed import all_sum
from utils.options import opt

PADDING, SPECIAL = -0.5, -1.0
"""scores below every attention weight: of padding, and of the class, start and end tokens"""
PUBLISHED_RATIO = 0.3


@dataclass(frozen=True)
class RDEOptions:
    """The flag that RDE's command lines are known by."""

    select_ratio: float | None = opt(
        None,
        "RDE: share of the tokens that a second embedding is made of (0.3 as published). Giving it adds this "
        "embedding, and the defaults of RDE hold: --division consensus, --tau 0.015, --margin 0.1",
        above=0,
        most=1,
    )

    @property
    def is_rde(self) -> bool:
        """Whether defaults are RDE's."""
        return self.select_ratio is not None


@dataclass(frozen=True)
class TokenSelectionOptions(RDEOptions):
    """Flags of the second embedding."""

    tse_norm: str = opt(
        "frozen",
        "batch norm in the second embedding: statistics as they are, so that it is only a learnt affine map (as in the "
        "paper's numbers), or those of the batch with its padding (as in the published code today)",
        choices=("frozen", "batch"),
    )


class TokenNorm(nn.BatchNorm1d):
    """Batch norm over rows, with the running statistics unless ``of_batch`` is set and the module trains.

    Statistics are those of all processes.
    """

    of_batch = False

    def forward(self, rows_PE: Tensor) -> Tensor:
        """(P, E) to (P, E) in float32."""
        rows_PE = full_precision(rows_PE)
        mean_E, var_E = self.running_mean, self.running_var
        if self.of_batch and self.training:
            total_E = all_sum(torch.cat([rows_PE.sum(dim=0), rows_PE.new_tensor([len(rows_PE)])]))
            count = total_E[-1].detach()
            mean_E = total_E[:-1] / count
            var_E = all_sum((rows_PE - mean_E).square().sum(dim=0)) / count
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean_E, self.momentum)
                self.running_var.lerp_(var_E * count / (count - 1).clamp(min=1), self.momentum)
        return (rows_PE - mean_E) * torch.rsqrt(var_E + self.eps) * self.weight + self.bias


class SelectedTokens(nn.Module):
    """The layers of one modality: a linear map and a perceptron side by side, and their maximum over the tokens."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.hidden = nn.Linear(width, out // 2)
        self.norm = TokenNorm(out // 2)
        self.out = nn.Linear(out // 2, out)

    def forward(self, tokens_BKD: Tensor, counts_BK: Tensor) -> Tensor:
        """Tokens (B, K, D), of which those in ``counts_BK`` (bool) enter the maximum, to (B, E) in float32."""
        tokens_BKD = full_precision(tokens_BKD)  # in which 1e-8 is not 0
        unit_BKD = tokens_BKD / (torch.linalg.vector_norm(tokens_BKD, dim=-1, keepdim=True) + 1e-8)
        hidden_BKE = self.norm(self.hidden(unit_BKD).flatten(0, 1)).relu().unflatten(0, tokens_BKD.shape[:2])
        each_BKE = full_precision(self.linear(unit_BKD) + self.out(hidden_BKE))
        return each_BKE.masked_fill(~counts_BK[..., None], -torch.inf).max(dim=1).values


class TokenSelection(nn.Module):
    """The second embedding of both modalities."""

    roles = {"": "tse"}

    def __init__(self, options: TokenSelectionOptions, backbone: Backbone, out: int | None = None) -> None:
        """For the tokens of a backbone, which from now on says what its pooled tokens attend to.

        ``out``: width of the embedding, twice that of the tokens unless a checkpoint has another.

        Raises:
            UserError: the backbone cannot say it.
        """
        super().__init__()
        self.ratio = options.select_ratio or PUBLISHED_RATIO
        if not backbone.gives_attention:
            raise UserError(
                f"--select_ratio {self.ratio}: the towers of --pretrain_choice do not say what their pooled "
                "token attends to; take CLIP's, or leave the flag out"
            )
        backbone.with_attention = True
        self.norm_of_batch = options.tse_norm == "batch"
        self.context_length = backbone.spec.context_length
        width = backbone.spec.embed_dim
        self.width = out or 2 * width
        """of the embedding, E"""
        self.image = SelectedTokens(width, self.width)
        self.text = SelectedTokens(width, self.width)
        for side in (self.image, self.text):
            side.norm.of_batch = self.norm_of_batch

    def forward_image(self, encoded: Encoded) -> Encoded:
        """A tower's output, the class token first, with the second embedding."""
        row_BK = self.image_choice(encoded.attention)
        return encoded._replace(selected=self.image(_rows(encoded.tokens, row_BK), torch.ones_like(row_BK).bool()))

    def forward_text(self, encoded: Encoded, lengths_B: Tensor) -> Encoded:
        """A tower's output with the second embedding; ``lengths_B``: tokens of each caption, start and end included."""
        row_BK, counts_BK = self.text_choice(encoded.attention, lengths_B)
        return encoded._replace(selected=self.text(_rows(encoded.tokens, row_BK), counts_BK))

    def image_choice(self, attention_BL: Tensor) -> Tensor:
        """(B, K) positions of the patches with the largest weights, in descending order."""
        score_BL = attention_BL.clone()
        score_BL[:, 0] = SPECIAL
        return score_BL.topk(max(int((score_BL.shape[1] - 1) * self.ratio), 1), dim=1).indices

    def text_choice(self, attention_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) positions of the tokens with the largest weights, in descending order, and which of them count.

        Their number depends on the context's length, not on the caption's; a shorter caption counts with all its
        words, and one without words with its end token. What does not count is padding, which enters batch statistics
        as it did in the published program.
        """
        total = attention_BL.shape[1]
        position_L = torch.arange(total, device=attention_BL.device)
        end_B1 = lengths_B.clamp(max=total)[:, None] - 1
        word_BL = (position_L > 0) & (position_L < end_B1)
        score_BL = attention_BL.masked_fill(position_L > end_B1, PADDING)
        score_BL = score_BL.masked_fill((position_L == 0) | (position_L == end_B1), SPECIAL)
        words_B1 = word_BL.sum(dim=1, keepdim=True)
        score_BL = torch.where((words_B1 == 0) & (position_L == end_B1), 1.0, score_BL)
        wanted = min(max(int((self.context_length - 2) * self.ratio), 1), total)
        row_BK = score_BL.topk(wanted, dim=1).indices
        return row_BK, torch.arange(wanted, device=row_BK.device) < words_B1.clamp(min=1)


def _rows(tokens_BLD: Tensor, row_BK: Tensor) -> Tensor:
    return tokens_BLD.gather(1, row_BK[..., None].expand(-1, -1, tokens_BLD.shape[2]))


def width_in(state: Mapping[str, Tensor]) -> int | None:
    """Width of the second embedding that a checkpoint's weights below ``token_selection.`` have; None without any."""
    weight = state.get("image.linear.weight")
    return None if weight is None else len(weight)
