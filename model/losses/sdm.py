"""Similarity distribution matching, IRRA's main loss."""

from torch import Tensor

from model.losses.base import SimilarityOptions, divergence_of_rows, same_identity
from model.losses.pairwise import PairwiseLoss


def sdm_rows(cosine_BB: Tensor, pids_B: Tensor, scale: float) -> Tensor:
    """(B,) similarity distribution matching of each row (Jiang & Ye, CVPR 2023, eq. 2-5), in nats.

    Pairs of one identity share the target equally. ``scale``: 1 / temperature.
    """
    same_BB = same_identity(pids_B)
    return divergence_of_rows(scale * cosine_BB, same_BB / same_BB.sum(dim=1, keepdim=True))


class SDM(PairwiseLoss):
    """SDM, sum of both directions."""

    Options = SimilarityOptions

    def rows(self, cosine_BB: Tensor, pids_B: Tensor) -> Tensor:
        """See the base class."""
        return sdm_rows(cosine_BB, pids_B, 1 / self.options.temperature)
