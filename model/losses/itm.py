"""Image-text matching on hard negatives, with an intra-modal contrastive term: ICLF's loss.

Shape letters: B batch, D embedding, L text positions, M image tokens, P pairs that the cross former looks at (3 for
each of this process's share of the batch).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch_views import BatchViews
from model.cross_former import CrossFormer
from model.losses.base import LossHead, LossTerm, Sizes, cosines, mean_classification, same_identity
from utils.distributed import from_main
from utils.options import opt

START_TEMPERATURE = 0.07
LEAST_TEMPERATURE = 1e-3
"""cosine / temperature stays below 1000, far from the limits of float32"""
SOFT_SHARE = 0.4
"""share of the model's own similarities in the targets of the intra-modal term; the rest goes to equal identities"""


@dataclass(frozen=True)
class ITMOptions:
    """Flags of the itm loss."""

    weight: float = opt(
        0.9, "share of matching in the itm loss; the rest is its intra-modal contrastive term", least=0, most=1
    )


def hard_negative_weights(logits_BB: Tensor, same_BB: Tensor) -> Tensor:
    """How likely each column is drawn as the negative of a row: the more similar, the likelier (ICLF, as published).

    Args:
        logits_BB: cosine / temperature; the weights get no gradient.
        same_BB: 1.0 where row and column share their identity, whose weight is 0. Rows do not sum to 1.
    """
    return (logits_BB.detach().softmax(dim=1) + 1e-5) * (1 - same_BB)


def draw_negatives(weights_BB: Tensor) -> Tensor:
    """One column per row, (B,), with a probability in proportion to its weight; the same in all processes.

    Rows that cannot be drawn from (all 0, or NaN once a run diverges) draw any column: on a GPU torch.multinomial would
    otherwise end the process without a word on the cause.
    """
    total_B1 = weights_BB.sum(dim=1, keepdim=True)
    drawable_B1 = (total_B1 > 0) & total_B1.isfinite()
    return from_main(torch.multinomial(torch.where(drawable_B1, weights_BB, 1.0), 1)[:, 0])


def intra_modal_loss(feature_BD: Tensor, same_BB: Tensor, temperature: Tensor | float) -> Tensor:
    """Contrast of the batch with itself within one modality (ICLF's L_cl for one modality), in nats.

    The target of a row is 0.4 x its own softmax (without a gradient) + 0.6 x equal shares for the entries of its
    identity, where ``same_BB`` is 1.0. Features need not be normalised.
    """
    logits_BB = cosines(feature_BD, feature_BD) / temperature
    identity_BB = same_BB / same_BB.sum(dim=1, keepdim=True)
    target_BB = SOFT_SHARE * logits_BB.detach().softmax(dim=1) + (1 - SOFT_SHARE) * identity_BB
    return F.cross_entropy(logits_BB, target_BB)


class ITM(LossHead):
    """Tell pairs from hard negatives through the cross former (ICLF, interlaced cross-attention), plus L_cl."""

    Options = ITMOptions
    needs = ("images", "caption_ids", "pids")
    padded = ("caption_ids", "mlm_ids")  # mlm_ids: what caption_ids stands for when captions are masked in place
    parts = ("cross_former",)

    def __init__(self, options: ITMOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        width = sizes.embed_dim
        layers = nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, 2)
        self.head = nn.Sequential(*layers)
        self.temp = nn.Parameter(torch.tensor(START_TEMPERATURE))

    def temperature(self) -> Tensor:
        """The learned temperature, at least 0.001.

        The parameter itself is put back to the bound: a clamp inside the graph would have no gradient below it, and
        the temperature could never rise again.
        """
        self.temp.data.clamp_(min=LEAST_TEMPERATURE)
        return self.temp

    def match(self, cross_former: CrossFormer, text_PLD: Tensor, image_PMD: Tensor) -> Tensor:
        """Logits (P, 2), float32, of text and image not belonging, and belonging, together."""
        first_PD = cross_former.first(text_PLD, image_PMD)
        # bfloat16 logits would make ties of different scores when this ranks images.
        with torch.autocast(first_PD.device.type, enabled=False):
            return self.head(first_PD.float())

    def forward(self, views: BatchViews) -> LossTerm:
        """``--weight`` x matching + (1 - ``--weight``) x intra-modal loss, in nats; 0 for a batch of one identity."""
        image, text, temperature = views.image(), views.text(), self.temperature()
        same_BB = same_identity(views.pids)
        logits_BB = cosines(image.pooled, text.pooled) / temperature
        image_for_text_B = draw_negatives(hard_negative_weights(logits_BB.T, same_BB))
        text_for_image_B = draw_negatives(hard_negative_weights(logits_BB, same_BB))
        # Positives, texts with negative images, negative texts with images: one call instead of three.
        negative_text = views.gather(text.tokens)[text_for_image_B[views.rows]]
        negative_image = views.gather(image.tokens)[image_for_text_B[views.rows]]
        text_PLD = torch.cat([text.tokens, text.tokens, negative_text])
        image_PMD = torch.cat([image.tokens, negative_image, image.tokens])
        with views.precision():
            logits_P2 = self.match(views.parts["cross_former"], text_PLD, image_PMD)
        target_P = (torch.arange(len(logits_P2), device=logits_P2.device) < len(text.tokens)).long()
        matching, accuracy = mean_classification(views, logits_P2, target_P)
        intra = [intra_modal_loss(side.pooled, same_BB, temperature) for side in (image, text)]
        share = self.options.weight
        loss = share * matching + (1 - share) * (intra[0] + intra[1]) / 2
        # The temperature is copied, because the log is read steps later.
        metrics = {"acc": accuracy, "temp": self.temp.detach().clone()}
        return LossTerm(self.usable(loss, views.pids), metrics)
