"""Consistency: identity association within a batch, on the augmented image and the half-masked caption."""

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm
from model.losses.soft import SoftOptions, soft_loss


class Cons(LossHead):
    """:func:`soft_loss` of the second view of every pair; reads no identity."""

    Options = SoftOptions
    needs = ("images_aug", "caption_ids_aug")

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar in nats."""
        options: SoftOptions = self.options
        image_BD, text_BD = views.image("images_aug").pooled, views.text("caption_ids_aug").pooled
        return LossTerm(soft_loss(image_BD, text_BD, options.thred1, options.thred2), {})
