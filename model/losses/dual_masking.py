"""Dual masking: doubtful words are hidden from the matching of images and captions, telling ones are to be predicted.

Shape letters: b this process's share of the batch, L text positions, D embedding, M positions to predict, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.batch_views import BatchViews
from model.losses.base import LossTerm, SimilarityOptions, Sizes, mean_classification
from model.losses.mlm import MLM, MLMOptions
from model.losses.nam import RATE, ScoredMasking, masked
from utils.options import opt

_STEEPNESS = 20


@dataclass(frozen=True)
class DualMaskingOptions(SimilarityOptions):
    """Flags of the dual_masking loss."""

    dual_beta: float = opt(0.4, "weight of predicting words in dual_masking (0.3 in the published script)", least=0)


def noise_probabilities(score_bL: Tensor) -> Tensor:
    """(b, L) the probability of hiding each token from the matching (GA-DMS, 2025); NaN scores: 0.15."""
    return _or_rate(0.2 * torch.sigmoid(_STEEPNESS * (1 - score_bL - 0.9)))


def telling_probabilities(score_bL: Tensor) -> Tensor:
    """(b, L) the probability of having to predict each token (GA-DMS, 2025); NaN scores: 0.15."""
    return _or_rate(0.3 * torch.sigmoid(_STEEPNESS * (score_bL - 0.1)))


def _or_rate(probability_bL: Tensor) -> Tensor:
    return torch.where(probability_bL.isnan(), RATE, probability_bL)


class DualMasking(ScoredMasking):
    """SDM on captions without doubtful words, and masked language modelling of telling ones through the cross former.

    A word is doubtful or telling by its cosine with the most similar patch, as in noise-aware masking.
    """

    Options = DualMaskingOptions
    padded = ("caption_ids",)
    parts = ("cross_former",)
    roles = {"predictor": "head"}

    def __init__(self, options: DualMaskingOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.predictor = MLM(MLMOptions(), sizes)

    def start_from(self, parts: Mapping[str, nn.Module]) -> None:
        """See the base class."""
        self.predictor.start_from(parts)

    def forward(self, views: BatchViews) -> LossTerm:
        """Sum of both, means in nats, with the part of each and the share of words predicted right."""
        score_bL, word_bL, draw_bL, hidden_bL = self.read(views)
        ids_bL = views.share("caption_ids")
        noise_bL = word_bL * noise_probabilities(score_bL)
        matching = self.sdm(views, torch.where(draw_bL < noise_bL, hidden_bL, ids_bL))
        # the same draws, from the other end: the two captions do not meet
        telling_bL = word_bL * telling_probabilities(score_bL)
        asked_bL = masked(torch.zeros_like(ids_bL), torch.ones_like(ids_bL), 1 - draw_bL, telling_bL, word_bL).bool()
        prediction, accuracy = self._predict(views, torch.where(asked_bL, hidden_bL, ids_bL), asked_bL)
        self.keep(views)
        metrics = {"sdm": matching.detach(), "mlm": prediction.detach(), "acc": accuracy}
        return LossTerm(matching + self.options.dual_beta * prediction, metrics)

    def _predict(self, views: BatchViews, ids_bL: Tensor, asked_bL: Tensor) -> tuple[Tensor, Tensor]:
        head = self.predictor
        positions_M = asked_bL.flatten().nonzero()[:, 0]
        tokens = views.encode_text(ids_bL, views.share("caption_ids_lengths")).tokens
        with views.precision():
            hidden_MD = views.parts["cross_former"].at(tokens, views.image().tokens, positions_M)
            logits_MV = head.fc(head.ln(head.gelu(head.dense(hidden_MD))))
        target_M = views.share("caption_ids").flatten()[positions_M]
        return mean_classification(views, logits_MV.float(), target_M)
