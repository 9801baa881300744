"""Reversed image-text contrastive loss: the divergence of N-ITC the other way round.

Shape letters: B batch (rows: queries, columns: candidates).
"""

from dataclasses import dataclass

from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import cosines, divergence_of_rows, same_identity
from model.losses.pairwise import PairwiseLoss
from utils.options import opt


@dataclass(frozen=True)
class RITCOptions:
    """Flags of the ritc loss."""

    ritc_ratio: float = opt(1.0, "weight of the ritc loss")
    ritc_eps: float = opt(0.01, "ritc: added to the targets, whose logarithm is taken", above=0)


def ritc_rows(logits_BB: Tensor, pids_B: Tensor, eps: float) -> Tensor:
    """(B,) half the divergence of each row's prediction from its target, in nats (Cao et al., AAAI 2024, eq. 4).

    The target plus ``eps`` is not normalised again, as published.
    """
    same_BB = same_identity(pids_B)
    return divergence_of_rows(logits_BB, same_BB / same_BB.sum(dim=1, keepdim=True), eps) / 2


class RITC(PairwiseLoss):
    """R-ITC (Cao et al., AAAI 2024): both directions, mean over pairs, with the learned scale."""

    Options = RITCOptions
    parts = ("logit_scale",)
    weight_flag = "ritc_ratio"

    def of_views(self, views: BatchViews) -> list[Tensor]:
        """(B,) the loss of every pair in each embedding."""
        scale, eps = views.parts["logit_scale"](), self.options.ritc_eps
        logits = [scale * cosines(*pair) for pair in views.embeddings()]
        return [ritc_rows(each_BB, views.pids, eps) + ritc_rows(each_BB.T, views.pids, eps) for each_BB in logits]
