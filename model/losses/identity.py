"""Identity classification."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, Sizes
from utils.options import opt


@dataclass(frozen=True)
class IDOptions:
    """Flags of the id loss."""

    id_loss_weight: float | None = opt(None, "weight of the id loss [1]")


class ID(LossHead):
    """One classifier over the training identities for both modalities (Zheng et al., TOMM 2020, instance loss)."""

    Options = IDOptions
    needs = ("images", "caption_ids", "pids")
    roles = {"classifier": "head"}
    weight_flag = "id_loss_weight"

    def __init__(self, options: IDOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.classifier = nn.Linear(sizes.embed_dim, sizes.num_ids)
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, views: BatchViews) -> LossTerm:
        """Mean cross-entropy of images and texts, in nats, with both accuracies."""
        logits_2BN = self.classifier(torch.cat([views.image().pooled, views.text().pooled]))
        image_BN, text_BN = logits_2BN.chunk(2)
        loss = (F.cross_entropy(image_BN, views.pids) + F.cross_entropy(text_BN, views.pids)) / 2
        sides = {"img_acc": image_BN, "txt_acc": text_BN}
        right = {name: logits_BN.detach().argmax(dim=1) == views.pids for name, logits_BN in sides.items()}
        return LossTerm(loss, {name: right_B.float().mean() for name, right_B in right.items()})
