"""Instance memory: a bank with a row per training image, in which all rows of an identity are right.

Shape letters: R rows, B batch.
"""

import torch
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.bank import Bank, BankOptions, bank_logits
from model.losses.base import LossHead, LossTerm, Sizes, TrainingPass


def multi_positive_loss(logits_BR: Tensor, pids_B: Tensor, pids_R: Tensor, eps: float = 1e-8) -> Tensor:
    """Mean of -log(softmax mass on the rows of the own identity + eps), in nats."""
    mass_B = (logits_BR.softmax(dim=1) * (pids_B[:, None] == pids_R)).sum(dim=1)
    return -torch.log(mass_B + eps).mean()


class InstanceMemory(LossHead):
    """ECCL's loss over a bank of training images."""

    Options = BankOptions
    needs = ("images", "caption_ids", "pids", "image_ids")
    has_bank = True
    weight_flag = "lamda2"

    def __init__(self, options: BankOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.bank = Bank(sizes.num_images, sizes.embed_dim)
        self.register_buffer("row_pids", torch.zeros(sizes.num_images, dtype=torch.int64))

    def forward(self, views: BatchViews) -> LossTerm:
        """Images against the text bank and texts against the image bank, in nats; their sum."""
        i2t_BR = bank_logits(views.image().pooled, self.bank.text, self.options.temp_instance)
        t2i_BR = bank_logits(views.text().pooled, self.bank.image, self.options.temp_instance)
        i2t = multi_positive_loss(i2t_BR, views.pids, self.row_pids)
        t2i = multi_positive_loss(t2i_BR, views.pids, self.row_pids)
        shown = {"loss_i2t": i2t, "loss_t2i": t2i}
        return LossTerm(i2t + t2i, {name: self.weight * loss.detach() for name, loss in shown.items()})

    def before_epoch(self, training_pass: TrainingPass) -> None:
        """Start from every image's feature and the mean feature of its captions."""
        if training_pass.epoch > 1:
            return
        pairs = training_pass.features
        self.bank.fill(pairs.image_ND, pairs.text_ND, pairs.image_ids_N)
        self.row_pids[pairs.image_ids_N.to(self.row_pids.device)] = pairs.pids_N.to(self.row_pids.device)

    def after_step(self, views: BatchViews) -> None:
        """Update the rows of the batch's images."""
        flags, rows_B = self.options, views["image_ids"]
        image_BD, text_BD = views.image().pooled, views.text().pooled
        self.bank.update(image_BD, text_BD, rows_B, flags.instance_momentum, flags.use_hard)
