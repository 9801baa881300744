"""Identity memory: each modality is classified against the running mean features of the other's identities."""

import torch.nn.functional as F

from model.batch_views import BatchViews
from model.losses.bank import BankHead, BankOptions
from model.losses.base import LossTerm, Sizes, TrainingPass


class Memory(BankHead):
    """ECCL's loss over a bank of identities."""

    needs = ("images", "caption_ids", "pids")
    weight_flag = "lamda1"

    def __init__(self, options: BankOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes, rows=sizes.num_ids)

    def forward(self, views: BatchViews) -> LossTerm:
        """Cross-entropy of images against the text bank and of texts against the image bank, in nats; their sum."""
        i2t_BR, t2i_BR = self.logits(views, self.options.temp)
        return self.term(F.cross_entropy(i2t_BR, views.pids), F.cross_entropy(t2i_BR, views.pids))

    def before_epoch(self, training_pass: TrainingPass) -> None:
        """Start from the mean feature of every identity."""
        if training_pass.epoch == 1:
            pairs = training_pass.features
            self.bank.fill(pairs.image_ND, pairs.text_ND, pairs.pids_N)

    def after_step(self, views: BatchViews) -> None:
        """Update the rows of the batch's identities."""
        self.update(views, views.pids, self.options.bank_momentum)
