"""Triplet alignment loss: a soft maximum over all negatives in place of the hardest one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, cosines, same_identity
from utils.options import opt

NOT_A_NEGATIVE = -1e30
"""a logit whose exponential is exactly 0 beside any other"""


@dataclass(frozen=True)
class TALOptions:
    """Flags of the TAL loss."""

    tau: float = opt(0.02, "temperature of TAL", above=0)
    margin: float = opt(0.2, "margin of TAL, in cosine")


def tal_loss(image_BD: Tensor, text_BD: Tensor, pids_B: Tensor, tau: float, margin: float) -> Tensor:
    """Triplet alignment loss (Qin et al., CVPR 2024, section 3.3); the sum over rows and directions.

    All texts of an image's identity are its positives, weighted by their similarity. ``tau``: temperature of these
    weights and of the soft maximum over negatives; ``margin``: by which positives must be ahead, in cosine.
    """
    cosine_BB = cosines(image_BD, text_BD)
    same_BB = same_identity(pids_B).bool()
    return _one_way(cosine_BB, same_BB, tau, margin) + _one_way(cosine_BB.T, same_BB, tau, margin)


def _one_way(cosine_BB: Tensor, same_BB: Tensor, tau: float, margin: float) -> Tensor:
    logits_BB = cosine_BB / tau
    weight_BB = logits_BB.detach().masked_fill(~same_BB, -torch.inf).softmax(dim=1)
    positive_B = (weight_BB * cosine_BB).sum(dim=1)
    # Finite, because a batch without any other identity would give infinity, and with it NaN as gradient.
    negative_B = tau * logits_BB.masked_fill(same_BB, NOT_A_NEGATIVE).logsumexp(dim=1)
    return (margin - positive_B + negative_B).clamp(min=0).sum()


class TAL(LossHead):
    """TAL of the pooled features."""

    Options = TALOptions
    needs = ("images", "caption_ids", "pids")

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar, in cosine, summed over the batch; 0 for a batch of one identity."""
        flags = self.options
        loss = tal_loss(views.image().pooled, views.text().pooled, views.pids, flags.tau, flags.margin)
        return LossTerm(self.usable(loss, views.pids), {})
