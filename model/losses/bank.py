"""Memory banks (a running mean feature per row and modality), and what the two losses over them share.

Shape letters: R rows of the bank, B batch, D embedding, N pairs of the training split.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, Sizes
from utils.options import opt


@dataclass(frozen=True)
class BankOptions:
    """Flags of the losses memory and instance_memory."""

    temp: float = opt(0.03, "temperature of the memory loss", above=0)
    temp_instance: float = opt(0.015, "temperature of the instance_memory loss", above=0)
    lamda1: float = opt(1.0, "weight of the memory loss")
    lamda2: float = opt(0.1, "weight of the instance_memory loss")
    bank_momentum: float = opt(0.1, "share of a row that stays when the memory loss's bank is updated", least=0, most=1)
    instance_momentum: float = opt(
        0.1, "share of a row that stays when the instance_memory loss's bank is updated", least=0, most=1
    )
    use_hard: bool = opt(False, "update a row only from the feature in the batch that is least similar to it")


class Bank(nn.Module):
    """Normalised rows for both modalities; in the checkpoint, but without gradients."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("image", torch.zeros(rows, width))
        self.register_buffer("text", torch.zeros(rows, width))

    def fill(self, image_ND: Tensor, text_ND: Tensor, rows_N: Tensor) -> None:
        """Start from the mean of the normalised features of each row's pairs, normalised."""
        for bank_RD, features_ND in ((self.image, image_ND), (self.text, text_ND)):
            unit_ND = F.normalize(features_ND.to(bank_RD), dim=1)
            bank_RD.zero_().index_add_(0, rows_N.to(bank_RD.device), unit_ND)
            bank_RD.copy_(F.normalize(bank_RD, dim=1))

    @torch.no_grad()
    def update(self, image_BD: Tensor, text_BD: Tensor, rows_B: Tensor, momentum: float, hard: bool = False) -> None:
        """Move rows towards the features of a batch: row = momentum * row + (1 - momentum) * feature, normalised.

        ``rows_B`` has the row of every pair. The pairs of one row take effect one after the other, in the batch's
        order; with ``hard`` only the feature least similar to its row does.
        """
        parts = (slice(None),) if hard else turns(rows_B)
        for bank_RD, features_BD in ((self.image, image_BD), (self.text, text_BD)):
            unit_BD = F.normalize(features_BD.detach(), dim=1)
            if hard:
                unit_BD = hardest(bank_RD, rows_B, unit_BD)
            for part in parts:
                moved_BD = momentum * bank_RD[rows_B[part]] + (1 - momentum) * unit_BD[part]
                bank_RD[rows_B[part]] = F.normalize(moved_BD, dim=1)


def turns(rows_B: Tensor) -> tuple[Tensor, ...]:
    """Positions in a batch, split so that the k-th part holds the k-th occurrence of every row.

    Waits for the device once, to learn how often the most frequent row occurs.
    """
    rank_B = (rows_B[:, None] == rows_B[None, :]).tril(diagonal=-1).sum(dim=1)
    return rank_B.argsort(stable=True).split(rank_B.bincount().tolist())


def hardest(bank_RD: Tensor, rows_B: Tensor, features_BD: Tensor) -> Tensor:
    """(B, D) for every pair, that of its row's features in the batch which is least similar to the row."""
    cosine_B = (bank_RD[rows_B] * features_BD).sum(dim=1)
    same_BB = rows_B[:, None] == rows_B[None, :]
    return features_BD[cosine_B.expand_as(same_BB).masked_fill(~same_BB, torch.inf).argmin(dim=1)]


class BankHead(LossHead):
    """Each modality against the other's bank."""

    Options = BankOptions

    def __init__(self, options: BankOptions, sizes: Sizes, rows: int) -> None:
        super().__init__(options, sizes)
        self.bank = Bank(rows, sizes.embed_dim)

    def logits(self, views: BatchViews, temperature: float) -> tuple[Tensor, Tensor]:
        """(B, R) cosines of images to the text bank and of texts to the image bank, over the temperature."""
        sides = ((views.image(), self.bank.text), (views.text(), self.bank.image))
        i2t_BR, t2i_BR = (F.normalize(side.pooled, dim=1) @ bank_RD.T / temperature for side, bank_RD in sides)
        return i2t_BR, t2i_BR

    def term(self, i2t: Tensor, t2i: Tensor) -> LossTerm:
        """The sum of both directions, each of which the log shows weighted."""
        shown = {"loss_i2t": i2t, "loss_t2i": t2i}
        return LossTerm(i2t + t2i, {name: self.weight * loss.detach() for name, loss in shown.items()})

    def update(self, views: BatchViews, rows_B: Tensor, momentum: float) -> None:
        """Update the bank's rows of a batch."""
        self.bank.update(views.image().pooled, views.text().pooled, rows_B, momentum, self.options.use_hard)
