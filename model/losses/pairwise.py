"""Losses that say of every pair how badly it is matched: what itc, sdm, TAL and TRL share.

Such a loss is taken of every embedding of the model (the pooled one, and the second one where token selection makes
it), can leave out pairs that :mod:`model.division` calls mismatched, and tells the division the loss of each pair.

Shape letters: B batch (rows: images, columns: texts), D embedding.
"""

from typing import ClassVar

import torch
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, cosines

NAMES = ("bge", "tse")
"""embeddings as RDE calls them: basic global embedding, token selection embedding"""


class PairwiseLoss(LossHead):
    """The loss of a pair is that of its image as a query plus that of its text as a query.

    A pair that the division leaves out is no query, but stays a candidate for the others.
    """

    needs = ("images", "caption_ids", "pids")
    summed: ClassVar[bool] = False
    """whether the loss is the sum over pairs, rather than the mean over those that count"""

    @property
    def scale(self) -> float:
        """What cosines are multiplied by for :meth:`rows`."""
        return 1.0

    def rows(self, logits_BB: Tensor, pids_B: Tensor | None) -> Tensor:
        """(B,) the loss of every row of a matrix of scaled cosines as a query over the columns."""
        raise NotImplementedError

    def of_pairs(self, image_BD: Tensor, text_BD: Tensor, pids_B: Tensor | None) -> Tensor:
        """(B,) the loss of every pair, by the features of a batch."""
        logits_BB = self.scale * cosines(image_BD, text_BD)
        return self.rows(logits_BB, pids_B) + self.rows(logits_BB.T, pids_B)

    def of_views(self, views: BatchViews) -> list[Tensor]:
        """(B,) the loss of every pair in each embedding."""
        pids_B = views.pids if "pids" in self.needs else None
        return [self.of_pairs(*pair, pids_B) for pair in views.embeddings()]

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar, and with several embeddings the share of each; 0 for a batch without any pair that counts."""
        losses = [self._reduced(loss_B, views.clean) for loss_B in self.of_views(views)]
        shown = {name: self.weight * loss.detach() for name, loss in zip(NAMES, losses, strict=False)}
        return LossTerm(torch.stack(losses).sum(), shown if len(losses) > 1 else {})

    def _reduced(self, loss_B: Tensor, clean_B: Tensor | None) -> Tensor:
        if clean_B is None:
            return loss_B.sum() if self.summed else loss_B.mean()
        total = (clean_B * loss_B).sum()
        return total if self.summed else total / clean_B.sum().clamp(min=1)
