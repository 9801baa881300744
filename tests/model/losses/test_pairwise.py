"""Losses per pair: TRL against nested loops, labels of the division, and the second embedding."""

import math
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from model.backbones.spec import Encoded
from model.logit_scale import LogitScale, ScaleOptions
from model.losses import HEADS
from model.losses.base import Sizes, cosines
from model.losses.pairwise import PairwiseLoss
from model.losses.trl import trl_rows

PAIRWISE = [name for name, head in HEADS.items() if issubclass(head, PairwiseLoss)]
PIDS = torch.tensor([0, 0, 1, 0, 2])
FEATURES = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
"""image and text, of two embeddings"""


class Views:
    """A batch as a pairwise loss sees it."""

    epoch, epoch_share = 1, 0.5
    parts: ClassVar = {"logit_scale": LogitScale(ScaleOptions(), math.log(20))}

    def __init__(
        self, *which: int, clean: list[float] | None = None, pids: torch.Tensor = PIDS, features=FEATURES
    ) -> None:
        """``which``: embeddings, by number; the first without any."""
        self.pairs, self.pids = [tuple(features[2 * number : 2 * number + 2]) for number in which or (0,)], pids
        self.clean = None if clean is None else torch.tensor(clean)

    def embeddings(self):
        return self.pairs

    def image(self, field: str = "images"):
        return SimpleNamespace(embeddings=[image for image, _ in self.pairs])

    def text(self, field: str = "caption_ids"):
        return SimpleNamespace(embeddings=[text for _, text in self.pairs])

    text_again = text


def head(name: str) -> PairwiseLoss:
    return HEADS[name](HEADS[name].Options(), Sizes(8, 9, 3, 5, 5))


def naive_trl(cosine, pids, tau, margin, floor):
    losses = []
    for row, own in zip(cosine, pids, strict=True):
        same = [s for s, pid in zip(row, pids, strict=True) if pid == own]
        other = [s for s, pid in zip(row, pids, strict=True) if pid != own]
        weights = [math.exp(s / tau) for s in same]
        positive = sum(w * s for w, s in zip(weights, same, strict=True)) / sum(weights)
        hardest = max([*other, 0.0] if floor else other, default=-math.inf)
        losses.append(max(0.0, margin - positive + hardest) if other else 0.0)
    return losses


@pytest.mark.parametrize("floor", [True, False])
@pytest.mark.parametrize("pids", [[0, 1, 2, 3, 4], [0, 0, 1, 0, 2], [7, 7, 7, 7, 7]])
def test_trl_equals_the_loops(pids, floor):
    cosine = torch.rand(5, 5, generator=torch.Generator().manual_seed(1)) * 2 - 1.2
    ours = trl_rows(cosine.requires_grad_(), torch.tensor(pids), 0.05, 0.3, floor)
    assert ours.tolist() == pytest.approx(naive_trl(cosine.tolist(), pids, 0.05, 0.3, floor), abs=1e-6)
    ours.sum().backward()
    assert cosine.grad.isfinite().all()


@pytest.mark.parametrize("name", PAIRWISE)
def test_the_loss_of_a_batch_is_made_of_its_pairs(name):
    loss = head(name)
    (each,) = loss.of_views(Views())
    assert each.shape == (5,) and (each >= 0).all() and each.sum() > 0
    expected = each.sum() if loss.summed else each.mean()
    torch.testing.assert_close(loss(Views()).loss, expected)
    assert loss(Views()).metrics == {}


@pytest.mark.parametrize("name", PAIRWISE)
def test_pairs_that_look_mismatched_are_no_queries(name):
    loss = head(name)
    (each,) = loss.of_views(Views())
    kept = each[[0, 3]]
    expected = kept.sum() if loss.summed else kept.mean()
    torch.testing.assert_close(loss(Views(clean=[1, 0, 0, 1, 0])).loss, expected)


@pytest.mark.parametrize("name", PAIRWISE)
def test_no_clean_pair_gives_zero_without_nan(name):
    loss = head(name)
    total = loss(Views(0, 1, clean=[0.0] * 5)).loss
    FEATURES.grad = None
    total.backward()
    assert total == 0 and not FEATURES.grad.any()


@pytest.mark.parametrize("name", PAIRWISE)
def test_both_embeddings_count_and_are_shown(name):
    loss = head(name)
    loss.weight = 3.0
    term = loss(Views(0, 1))
    torch.testing.assert_close(term.loss, loss(Views(0)).loss + loss(Views(1)).loss)
    torch.testing.assert_close(term.metrics["bge"] + term.metrics["tse"], 3 * term.loss.detach())


@pytest.mark.parametrize("name", ["TAL", "TRL"])
@pytest.mark.parametrize("tau", [1e-4, 0.005])
def test_small_temperatures_stay_finite(name, tau):
    options = HEADS[name].Options(tau=tau)
    loss = HEADS[name](options, Sizes(8, 9, 3, 5, 5))
    FEATURES.grad = None
    total = loss(Views()).loss
    total.backward()
    assert total.isfinite() and FEATURES.grad.isfinite().all() and FEATURES.grad.any()


def test_one_identity_is_counted_and_gives_zero():
    for name in ("TAL", "TRL"):
        loss = head(name)
        total = loss(Views(0, 1, pids=torch.full((5,), 4))).loss
        FEATURES.grad = None
        total.backward()
        assert total == 0 and not FEATURES.grad.any() and loss.unusable == 1


def test_defaults_follow_the_system():
    group = HEADS["TAL"].Options
    assert (group().temperature, group().distance) == (0.02, 0.2)
    assert (group(select_ratio=0.3).temperature, group(select_ratio=0.3).distance) == (0.015, 0.1)
    assert (group(select_ratio=0.3, tau=0.1).temperature, group(margin=0.0).distance) == (0.1, 0.0)


def test_the_cosine_of_a_feature_is_the_mean_over_its_embeddings():
    image, text = (
        Encoded(torch.empty(5, 0, 8), a, torch.empty(0), None, b) for a, b in (FEATURES[::2], FEATURES[1::2])
    )
    expected = (cosines(image.pooled, text.pooled) + cosines(image.selected, text.selected)) / 2
    torch.testing.assert_close(cosines(image.feature, text.feature), expected)
