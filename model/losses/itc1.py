"""The loss itc1: pairs that resemble each other in both modalities are positives; no identity is read.

Shape letters: B batch (rows: images, columns: texts), D embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, cosines, projection_matching
from utils.options import opt

SCALE = 50.0
"""logits per unit of cosine; published as a constant, whatever ``--temperature`` says"""
EPS = 1e-6
"""keeps the logarithm of a target finite where it is 0"""
_PAIR, _NEIGHBOUR = 1.0, 0.1
"""target logits of a pair itself and of another pair that resembles it"""


@dataclass(frozen=True)
class SoftOptions:
    """When itc1 and cons take two pairs of a batch for the same person."""

    thred1: float = opt(
        0.7, "itc1, cons: cosine of two images above which their pairs may be the same person", least=-1, most=1
    )
    thred2: float = opt(0.7, "itc1, cons: cosine of two captions that has to be exceeded as well", least=-1, most=1)


@torch.no_grad()
def soft_target(image_BD: Tensor, text_BD: Tensor, image_threshold: float, text_threshold: float) -> Tensor:
    """(B, B) target distributions in rows, zero where two pairs do not resemble each other in both modalities."""
    near_BB = cosines(image_BD, image_BD) > image_threshold
    near_BB &= cosines(text_BD, text_BD) > text_threshold
    logits_BB = torch.full_like(near_BB, -torch.inf, dtype=image_BD.dtype).masked_fill_(near_BB, _NEIGHBOUR)
    return F.softmax(logits_BB.fill_diagonal_(_PAIR), dim=1)


def soft_loss(image_BD: Tensor, text_BD: Tensor, image_threshold: float, text_threshold: float) -> Tensor:
    """Identity association within a batch (DGCMIA: Zhang et al., 2025, local granularity); both directions, in nats.

    Two pairs, each a row of both, are associated where their cosines exceed both thresholds.
    """
    target_BB = soft_target(image_BD, text_BD, image_threshold, text_threshold)
    logits_BB = SCALE * cosines(image_BD, text_BD)
    return projection_matching(logits_BB, target_BB, EPS) + projection_matching(logits_BB.T, target_BB, EPS)


class ITC1(LossHead):
    """:func:`soft_loss` of the plain view of every pair (the published logs call it ``sdm_loss``)."""

    Options = SoftOptions

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar in nats."""
        options: SoftOptions = self.options
        images, captions = self.needs
        image_BD, text_BD = views.image(images).pooled, views.text(captions).pooled
        return LossTerm(soft_loss(image_BD, text_BD, options.thred1, options.thred2), {})
