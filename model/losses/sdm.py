"""Similarity distribution matching, IRRA's main loss."""

from torch import Tensor

from model.losses.base import SimilarityOptions, divergence_of_rows, same_identity
from model.losses.pairwise import PairwiseLoss


def sdm_rows(logits_BB: Tensor, pids_B: Tensor) -> Tensor:
    """(B,) similarity distribution matching of each row (Jiang & Ye, CVPR 2023, eq. 2-5), in nats.

    Pairs of one identity share the target equally.
    """
    same_BB = same_identity(pids_B)
    return divergence_of_rows(logits_BB, same_BB / same_BB.sum(dim=1, keepdim=True))


class SDM(PairwiseLoss):
    """SDM, sum of both directions."""

    Options = SimilarityOptions

    @property
    def scale(self) -> float:
        """1 / temperature."""
        return 1 / self.options.temperature

    def rows(self, logits_BB: Tensor, pids_B: Tensor) -> Tensor:
        """See the base class."""
        return sdm_rows(logits_BB, pids_B)
