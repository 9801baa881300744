"""Similarity distribution matching, IRRA's main loss."""

from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, SimilarityOptions, cosines, projection_matching, same_identity


def sdm_loss(image_BD: Tensor, text_BD: Tensor, pids_B: Tensor, scale: float) -> Tensor:
    """Similarity distribution matching (Jiang & Ye, CVPR 2023, eq. 2-5); sum of both directions, in nats.

    Pairs of one identity share the target equally. ``scale``: 1 / temperature.
    """
    logits_BB = scale * cosines(image_BD, text_BD)
    same_BB = same_identity(pids_B)
    target_BB = same_BB / same_BB.sum(dim=1, keepdim=True)
    return projection_matching(logits_BB, target_BB) + projection_matching(logits_BB.T, target_BB)


class SDM(LossHead):
    """SDM of the pooled features."""

    Options = SimilarityOptions
    needs = ("images", "caption_ids", "pids")

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar in nats."""
        loss = sdm_loss(views.image().pooled, views.text().pooled, views.pids, 1 / self.options.temperature)
        return LossTerm(loss, {})
