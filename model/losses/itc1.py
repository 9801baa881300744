"""Identity association within a batch, on the plain view of every pair (the published logs call it ``sdm_loss``)."""

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm
from model.losses.soft import SoftOptions, soft_loss


class ITC1(LossHead):
    """:func:`soft_loss` of the pooled features; reads no identity."""

    Options = SoftOptions

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar in nats."""
        options: SoftOptions = self.options
        loss = soft_loss(views.image().pooled, views.text().pooled, options.thred1, options.thred2)
        return LossTerm(loss, {})
