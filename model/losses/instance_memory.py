"""Instance memory: a bank with a row per training image, in which all rows of an identity are right.

Shape letters: R rows, B batch.
"""

import torch
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.bank import BankHead, BankOptions
from model.losses.base import LossTerm, Sizes, TrainingPass


def multi_positive_loss(logits_BR: Tensor, pids_B: Tensor, pids_R: Tensor, eps: float = 1e-8) -> Tensor:
    """Mean of -log(softmax mass on the rows of the own identity + eps), in nats."""
    mass_B = (logits_BR.softmax(dim=1) * (pids_B[:, None] == pids_R)).sum(dim=1)
    return -torch.log(mass_B + eps).mean()


class InstanceMemory(BankHead):
    """ECCL's loss over a bank of training images."""

    needs = ("images", "caption_ids", "pids", "image_ids")
    weight_flag = "lamda2"

    def __init__(self, options: BankOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes, rows=sizes.num_images)
        self.register_buffer("row_pids", torch.zeros(sizes.num_images, dtype=torch.int64))

    def forward(self, views: BatchViews) -> LossTerm:
        """Images against the text bank and texts against the image bank, in nats; their sum."""
        i2t_BR, t2i_BR = self.logits(views, self.options.temp_instance)
        i2t = multi_positive_loss(i2t_BR, views.pids, self.row_pids)
        return self.term(i2t, multi_positive_loss(t2i_BR, views.pids, self.row_pids))

    def before_epoch(self, training_pass: TrainingPass) -> None:
        """Start from every image's feature and the mean feature of its captions."""
        if training_pass.epoch == 1:
            pairs = training_pass.features
            self.bank.fill(pairs.image_ND, pairs.text_ND, pairs.image_ids_N)
            self.row_pids[pairs.image_ids_N.to(self.row_pids.device)] = pairs.pids_N.to(self.row_pids.device)

    def after_step(self, views: BatchViews) -> None:
        """Update the rows of the batch's images."""
        self.update(views, views["image_ids"], self.options.instance_momentum)
