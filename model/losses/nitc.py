"""Normalised image-text contrastive loss with soft labels, TBPS-CLIP's main loss.

Shape letters: B batch (rows: queries, columns: candidates), D embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import Sizes, cosines, same_identity
from model.losses.pairwise import PairwiseLoss
from utils.options import opt


@dataclass(frozen=True)
class NITCOptions:
    """Flags of the nitc loss."""

    nitc_ratio: float = opt(1.0, "weight of the nitc loss")
    softlabel_ratio: float = opt(
        0.5,
        "nitc: share of the targets that the model itself gives; it rises from 0 to this within the first epoch",
        least=0,
        most=1,
    )
    mvs_image: bool = opt(False, "nitc: also of a second view of each image, the mean of both (MVS-I)")


def soft_share(ratio: float, epoch: int, epoch_share: float) -> float:
    """The weight of soft labels after ``epoch_share`` of an epoch (from 1 on): a ramp within the first."""
    return ratio * min(1.0, epoch_share) if epoch <= 1 else ratio


def nitc_rows(logits_BB: Tensor, pids_B: Tensor, soft_BB: Tensor, share: float) -> Tensor:
    """(B,) half the cross-entropy of each row against its targets, in nats (Cao et al., AAAI 2024, eq. 1 and 3).

    Args:
        logits_BB: scaled cosines.
        pids_B: pairs of one identity share the hard target equally.
        soft_BB: scaled cosines that give the soft target; no gradient flows through them.
        share: of the soft target.
    """
    same_BB = same_identity(pids_B)
    hard_BB = same_BB / same_BB.sum(dim=1, keepdim=True)
    target_BB = share * soft_BB.detach().softmax(dim=1) + (1 - share) * hard_BB
    return F.cross_entropy(logits_BB, target_BB, reduction="none") / 2


class NITC(PairwiseLoss):
    """N-ITC (Cao et al., AAAI 2024): both directions, mean over pairs, with the learned scale.

    Soft labels come from a second pass over the captions, which differs by dropout only and is left out without any;
    images are encoded once, for nothing is dropped there.
    """

    Options = NITCOptions
    parts = ("logit_scale",)
    weight_flag = "nitc_ratio"

    def __init__(self, options: NITCOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.image_fields = ("images", "images_mvs") if options.mvs_image else ("images",)
        self.needs = (*dict.fromkeys([*self.image_fields, *type(self).needs]),)

    def of_views(self, views: BatchViews) -> list[Tensor]:
        """(B,) the loss of every pair in each embedding, mean over the views of its image."""
        options: NITCOptions = self.options
        share = soft_share(options.softlabel_ratio, views.epoch, views.epoch_share)
        scale, texts = views.parts["logit_scale"](), views.text().embeddings
        again = views.text_again().embeddings if share else texts

        def of_image(image_BD: Tensor, text_BD: Tensor, again_BD: Tensor) -> Tensor:
            logits_BB = scale * cosines(image_BD, text_BD)
            # without a second pass the soft labels are those of the logits, from which no gradient flows either
            soft_BB = logits_BB if again_BD is text_BD else scale.detach() * cosines(image_BD.detach(), again_BD)
            image_to_text = nitc_rows(logits_BB, views.pids, soft_BB, share)
            return image_to_text + nitc_rows(logits_BB.T, views.pids, soft_BB.T, share)

        by_view = [
            [of_image(*each) for each in zip(views.image(field).embeddings, texts, again, strict=True)]
            for field in self.image_fields
        ]
        return [torch.stack(losses).mean(dim=0) for losses in zip(*by_view, strict=True)]
