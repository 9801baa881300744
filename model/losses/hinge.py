"""What the triplet losses TAL and TRL share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.adapters.token_selection import RDEOptions
from model.batch_views import BatchViews
from model.losses.base import LossTerm
from model.losses.pairwise import PairwiseLoss
from utils.options import opt


@dataclass(frozen=True)
class HingeOptions(RDEOptions):
    """Flags of TAL and TRL."""

    tau: float | None = opt(None, "TAL, TRL: temperature [0.02; with --select_ratio 0.015]", above=0)
    margin: float | None = opt(None, "TAL, TRL: margin, in cosine [0.2; with --select_ratio 0.1]")

    @property
    def temperature(self) -> float:
        """``--tau``, or the default of the system: RDE's or ECCL's."""
        return self.tau if self.tau is not None else 0.015 if self.is_rde else 0.02

    @property
    def distance(self) -> float:
        """``--margin``, or the default of the system: RDE's or ECCL's."""
        return self.margin if self.margin is not None else 0.1 if self.is_rde else 0.2


class HingeLoss(PairwiseLoss):
    """Positives must be ahead of negatives by a margin; summed over pairs, 0 for a batch of one identity."""

    Options = HingeOptions
    summed = True

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar, in cosine, and with several embeddings the share of each."""
        term = super().forward(views)
        return term._replace(loss=self.usable(term.loss, views.pids))


def positive_similarity(cosine_BB: Tensor, same_BB: Tensor, tau: float) -> Tensor:
    """(B,) mean cosine of the columns of a row's identity, weighted by the softmax of their own cosines over tau.

    No gradient flows through the weights. ``same_BB`` (bool): which columns are of a row's identity.
    """
    weight_BB = (cosine_BB.detach() / tau).masked_fill(~same_BB, -torch.inf).softmax(dim=1)
    return (weight_BB * cosine_BB).sum(dim=1)
