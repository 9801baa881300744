"""Image-text contrastive loss."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.losses.base import SimilarityOptions
from model.losses.pairwise import PairwiseLoss
from utils.options import opt


@dataclass(frozen=True)
class ITCOptions(SimilarityOptions):
    """Flags of the itc loss."""

    itc_loss_weight: float | None = opt(None, "weight of the itc loss [1; 5 with the loss aux]")


def itc_rows(logits_BB: Tensor) -> Tensor:
    """(B,) half the cross-entropy of each row, whose match is on the diagonal, in nats."""
    target_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return F.cross_entropy(logits_BB, target_B, reduction="none") / 2


class ITC(PairwiseLoss):
    """InfoNCE in both directions (Radford et al., ICML 2021): each pair is its own class; mean of the two."""

    Options = ITCOptions
    needs = ("images", "caption_ids")
    weight_flag = "itc_loss_weight"

    @property
    def scale(self) -> float:
        """1 / temperature."""
        return 1 / self.options.temperature

    def rows(self, logits_BB: Tensor, pids_B: Tensor | None) -> Tensor:
        """See the base class; identities are not read."""
        return itc_rows(logits_BB)
