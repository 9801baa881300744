"""Triplet alignment loss: a soft maximum over all negatives in place of the hardest one.

ECCL takes it of the pooled features, RDE of two embeddings, with other defaults of temperature and margin.
"""

from torch import Tensor

from model.losses.base import same_identity
from model.losses.hinge import HingeLoss, positive_similarity

NOT_A_NEGATIVE = -1e30
"""a logit whose exponential is exactly 0 beside any other"""


def tal_rows(cosine_BB: Tensor, pids_B: Tensor, tau: float, margin: float) -> Tensor:
    """(B,) triplet alignment loss (Qin et al., CVPR 2024, section 3.3) of each row, in cosine.

    All columns of a row's identity are its positives, weighted by their similarity. ``tau``: temperature of these
    weights and of the soft maximum over negatives; ``margin``: by which positives must be ahead, in cosine.
    """
    same_BB = same_identity(pids_B).bool()
    # Finite, because a batch without any other identity would give infinity, and with it NaN as gradient.
    negative_B = tau * (cosine_BB / tau).masked_fill(same_BB, NOT_A_NEGATIVE).logsumexp(dim=1)
    return (margin - positive_similarity(cosine_BB, same_BB, tau) + negative_B).clamp(min=0)


class TAL(HingeLoss):
    """TAL, summed over pairs and both directions."""

    def rows(self, logits_BB: Tensor, pids_B: Tensor) -> Tensor:
        """See the base class; the logits are cosines."""
        return tal_rows(logits_BB, pids_B, self.options.temperature, self.options.distance)
