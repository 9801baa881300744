"""Image-text contrastive loss."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, SimilarityOptions, cosines
from utils.options import opt


@dataclass(frozen=True)
class ITCOptions(SimilarityOptions):
    """Flags of the itc loss."""

    itc_loss_weight: float | None = opt(None, "weight of the itc loss [1; 5 with the loss aux]")


def itc_loss(image_BD: Tensor, text_BD: Tensor, scale: float) -> Tensor:
    """InfoNCE in both directions (Radford et al., ICML 2021): each pair is its own class; mean of the two, in nats."""
    logits_BB = scale * cosines(image_BD, text_BD)
    target_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, target_B) + F.cross_entropy(logits_BB.T, target_B)) / 2


class ITC(LossHead):
    """Contrastive loss of the pooled features."""

    Options = ITCOptions
    weight_flag = "itc_loss_weight"

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar in nats."""
        loss = itc_loss(views.image().pooled, views.text().pooled, 1 / self.options.temperature)
        return LossTerm(loss, {})
