"""Identity memory: each modality is classified against the running mean features of the other's identities."""

import torch.nn.functional as F

from model.batch_views import BatchViews
from model.losses.bank import Bank, BankOptions, bank_logits
from model.losses.base import LossHead, LossTerm, Sizes, TrainingPass


class Memory(LossHead):
    """ECCL's loss over a bank of identities."""

    Options = BankOptions
    needs = ("images", "caption_ids", "pids")
    has_bank = True
    weight_flag = "lamda1"

    def __init__(self, options: BankOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.bank = Bank(sizes.num_ids, sizes.embed_dim)

    def forward(self, views: BatchViews) -> LossTerm:
        """Cross-entropy of images against the text bank and of texts against the image bank, in nats; their sum."""
        i2t_BR = bank_logits(views.image().pooled, self.bank.text, self.options.temp)
        t2i_BR = bank_logits(views.text().pooled, self.bank.image, self.options.temp)
        i2t, t2i = F.cross_entropy(i2t_BR, views.pids), F.cross_entropy(t2i_BR, views.pids)
        shown = {"loss_i2t": i2t, "loss_t2i": t2i}
        return LossTerm(i2t + t2i, {name: self.weight * loss.detach() for name, loss in shown.items()})

    def before_epoch(self, training_pass: TrainingPass) -> None:
        """Start from the mean feature of every identity."""
        if training_pass.epoch == 1:
            pairs = training_pass.features
            self.bank.fill(pairs.image_ND, pairs.text_ND, pairs.pids_N)

    def after_step(self, views: BatchViews) -> None:
        """Update the rows of the batch's identities."""
        flags = self.options
        self.bank.update(views.image().pooled, views.text().pooled, views.pids, flags.bank_momentum, flags.use_hard)
