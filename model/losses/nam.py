"""Noise-aware masking: words of a caption that the image does not show are masked more often.

Shape letters: B batch, b this process's share of it, L text positions, P patches, D embedding.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from model.backbones.spec import Backbone
from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, SimilarityOptions, Sizes, cosines
from model.losses.sdm import sdm_rows
from model.token_scores import TokenScores
from utils import UserError

RATE = 0.15
"""mean probability of masking a word, and that of every word of a caption that was never seen"""
EARLY_BLOCKS = 2
"""blocks before the end of the towers, at which words and patches are compared"""


@dataclass(frozen=True)
class NAMOptions(SimilarityOptions):
    """Flags of the nam loss: the temperature."""


def masking_probabilities(score_BL: Tensor, word_BL: Tensor) -> Tensor:
    """(B, L) the probability of masking each token (Tan et al., CVPR 2024, noise-aware masking).

    Args:
        score_BL: similarity of each token to its most similar patch; NaN in captions that were never seen.
        word_BL: bool, which tokens may be masked; the others have the probability 0.
    """
    doubt_BL = torch.where(word_BL, 1 - score_BL, 0)
    mean_B1 = doubt_BL.sum(dim=1, keepdim=True) / word_BL.sum(dim=1, keepdim=True).clamp(min=1)
    probability_BL = (doubt_BL - mean_B1 + RATE).clamp(0, 1)
    return torch.where(word_BL, torch.where(probability_BL.isnan(), RATE, probability_BL), 0)


def masked(ids_BL: Tensor, hidden_BL: Tensor, draw_BL: Tensor, probability_BL: Tensor, word_BL: Tensor) -> Tensor:
    """(B, L) ids with ``hidden_BL`` in place of those that are masked: where ``draw_BL`` (uniform in 0..1) is below the
    probability, but at least the first word."""
    chosen_BL = draw_BL < probability_BL
    first_BL = word_BL & (word_BL.cumsum(dim=1) == 1)
    chosen_BL = chosen_BL | (first_BL & ~chosen_BL.any(dim=1, keepdim=True))
    return torch.where(chosen_BL, hidden_BL, ids_BL)


def best_patch(text_BLD: Tensor, patch_BPD: Tensor) -> Tensor:
    """(B, L) cosine of every token with the most similar patch of its image, in float32."""
    text_BLD, patch_BPD = (F.normalize(each.float(), dim=-1) for each in (text_BLD, patch_BPD))
    return (text_BLD @ patch_BPD.transpose(1, 2)).amax(dim=2)


def read_early(backbone: Backbone, name: str) -> None:
    """Let the towers keep their tokens some blocks before the end, for the loss ``name``.

    Raises:
        UserError: they cannot.
    """
    if not backbone.gives_early:
        raise UserError(f"--loss_names {name}: {backbone.name} does not give the tokens from inside its towers")
    backbone.early_blocks = EARLY_BLOCKS


class ScoredMasking(LossHead):
    """A loss that masks captions with probabilities made of the scores of their words at the visit before."""

    needs = ("images", "caption_ids", "pids", "index", "mask_draws", "mask_hidden", "mask_words")
    reads_early = True

    def __init__(self, options: object, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self._shape = (sizes.num_pairs, sizes.text_length)
        self._scores: TokenScores | None = None

    def open(self, folder: Path, step: int) -> None:
        """See the base class."""
        self._scores = TokenScores(folder, *self._shape, step)

    def saved(self) -> None:
        """See the base class."""
        if self._scores is not None:
            self._scores.saved()

    def read(self, views: BatchViews) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of this process's captions, each (b, L): scores, words that may be masked, draws, and ids of masked words."""
        ids_bL = views.share("caption_ids")
        length = ids_bL.shape[1]
        score_bL = torch.full(ids_bL.shape, torch.nan)  # without a run directory nothing was ever seen
        if self._scores is not None:
            score_bL = torch.from_numpy(self._scores.read(views.share("index").cpu().numpy())[:, :length])
        words, draws, hidden = (views.share(f"mask_{name}")[:, :length] for name in ("words", "draws", "hidden"))
        return score_bL.to(ids_bL.device), words, draws, hidden

    @torch.no_grad()
    def keep(self, views: BatchViews) -> Tensor:
        """Score the captions as they are now and write the scores of the whole batch: (b, L) those of this process.

        To be called in every forward pass: no process gets to the end of the backward pass, and thus to its next batch,
        before all have been here.
        """
        score_bL = best_patch(views.early_text(), views.image().early)
        padded_bL = F.pad(score_bL, (0, self._shape[1] - score_bL.shape[1]))
        padded_BL = views.gather(padded_bL)
        if self._scores is not None:
            self._scores.write(views["index"].cpu().numpy(), padded_BL.cpu().numpy())
        return score_bL

    def sdm(self, views: BatchViews, ids_bL: Tensor) -> Tensor:
        """SDM of the images with captions that were masked, mean over the batch, in nats."""
        text = views.encode_text(ids_bL, views.share("caption_ids_lengths"))
        logits_BB = cosines(views.image().pooled, text.pooled) / self.options.temperature
        return (sdm_rows(logits_BB, views.pids) + sdm_rows(logits_BB.T, views.pids)).mean()


class NAM(ScoredMasking):
    """SDM on captions whose doubtful words are masked more often (Tan et al., CVPR 2024)."""

    Options = NAMOptions

    def forward(self, views: BatchViews) -> LossTerm:
        """Mean over the batch, in nats, with the share of words that were masked and the mean score of words."""
        old_bL, word_bL, draw_bL, hidden_bL = self.read(views)
        ids_bL = views.share("caption_ids")
        masked_bL = masked(ids_bL, hidden_bL, draw_bL, masking_probabilities(old_bL, word_bL), word_bL)
        loss, score_bL = self.sdm(views, masked_bL), self.keep(views)
        counts = torch.stack([((masked_bL != ids_bL) & word_bL).sum(), (score_bL * word_bL).sum()])
        changed, score = views.mean(counts, int(word_bL.sum()))
        return LossTerm(loss, {"masked": changed, "score": score})
