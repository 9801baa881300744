"""Cross-modal projection matching."""

import torch.nn.functional as F
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, projection_matching, same_identity


def cmpm_loss(image_BD: Tensor, text_BD: Tensor, pids_B: Tensor) -> Tensor:
    """Cross-modal projection matching (Zhang & Lu, ECCV 2018, eq. 1-6); sum of both directions, in nats.

    Each side is projected onto the normalised other side without a temperature. The target is divided by its row's L2
    norm, as the published implementation does (the paper divides by the sum).
    """
    target_BB = F.normalize(same_identity(pids_B), dim=1)
    image_on_text_BB = image_BD @ F.normalize(text_BD, dim=-1).T
    text_on_image_BB = text_BD @ F.normalize(image_BD, dim=-1).T
    return projection_matching(image_on_text_BB, target_BB) + projection_matching(text_on_image_BB, target_BB)


class CMPM(LossHead):
    """CMPM of the pooled features."""

    needs = ("images", "caption_ids", "pids")

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar in nats."""
        return LossTerm(cmpm_loss(views.image().pooled, views.text().pooled, views.pids), {})
