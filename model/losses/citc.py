"""Cyclic image-text contrastive loss: similarities within and across modalities agree.

Shape letters: B batch, D embedding.
"""

from dataclasses import dataclass

from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, cosines
from utils.options import opt


@dataclass(frozen=True)
class CITCOptions:
    """Flags of the citc loss."""

    citc_ratio: float = opt(0.1, "weight of the citc loss")
    citc_lambda1: float = opt(0.25, "citc: weight of the term within modalities", least=0)
    citc_lambda2: float = opt(0.25, "citc: weight of the term across modalities", least=0)


def citc_loss(image_BD: Tensor, text_BD: Tensor, within: float, across: float) -> Tensor:
    """C-ITC (CyCLIP: Goel et al., NeurIPS 2022, eq. 2 and 3; Cao et al., AAAI 2024, eq. 5), in squared cosine.

    Means over all B x B entries, as the published program computes them (the paper divides by B). ``within`` and
    ``across``: weights of the two terms.
    """
    cross_BB = cosines(image_BD, text_BD)
    inner_BB = cosines(image_BD, image_BD) - cosines(text_BD, text_BD)
    return within * inner_BB.square().mean() + across * (cross_BB - cross_BB.T).square().mean()


class CITC(LossHead):
    """:func:`citc_loss` of the pooled features."""

    Options = CITCOptions
    weight_flag = "citc_ratio"

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar."""
        options: CITCOptions = self.options
        features = views.image().pooled, views.text().pooled
        return LossTerm(citc_loss(*features, options.citc_lambda1, options.citc_lambda2), {})
