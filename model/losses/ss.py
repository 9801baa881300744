"""Self-supervision of images: two views of one image find each other among all views of the batch.

Shape letters: B batch, D embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, Sizes, cosines
from utils.options import opt


@dataclass(frozen=True)
class SSOptions:
    """Flags of the ss loss."""

    ss_ratio: float = opt(0.4, "weight of the ss loss")
    simclr_temperature: float = opt(0.1, "ss: temperature", above=0)
    ss_hidden: int = opt(128, "ss: hidden channels of its head", least=1)
    ss_width: int | None = opt(None, "ss: output channels of its head [those of the features]", least=1)


def ss_loss(one_BD: Tensor, other_BD: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views of each image, in nats (SimCLR: Chen et al., ICML 2020, eq. 1), mean over both as queries.

    All other views of the batch are negatives, also those of the same identity. The vectors need not be normalised.
    """
    across_BB = cosines(one_BD, other_BD) / temperature
    target_B = torch.arange(len(one_BD), device=one_BD.device)
    itself_BB = torch.eye(len(one_BD), dtype=torch.bool, device=one_BD.device)
    losses = []
    for view_BD, toward_BB in ((one_BD, across_BB), (other_BD, across_BB.T)):
        within_BB = (cosines(view_BD, view_BD) / temperature).masked_fill(itself_BB, -torch.inf)
        losses.append(F.cross_entropy(torch.cat([toward_BB, within_BB], dim=1), target_B))
    return torch.stack(losses).mean()


class SS(LossHead):
    """SS-I (Cao et al., AAAI 2024, section 3.3): SimCLR on top of the image features, with a head of its own."""

    Options = SSOptions
    needs = ("images_ss1", "images_ss2")
    weight_flag = "ss_ratio"

    def __init__(self, options: SSOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        out = options.ss_width or sizes.embed_dim
        self.mlp = nn.Sequential(
            nn.Linear(sizes.embed_dim, options.ss_hidden), nn.ReLU(), nn.Linear(options.ss_hidden, out)
        )

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar in nats."""
        with views.precision():
            one_BD, other_BD = (self.mlp(views.image(field).pooled) for field in self.needs)
        return LossTerm(ss_loss(one_BD.float(), other_BD.float(), self.options.simclr_temperature), {})
