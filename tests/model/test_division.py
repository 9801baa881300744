"""The division of training pairs: fits, coins, and what a run sees of it."""

import re

import numpy as np
import pytest
import torch

from model.division import SETTINGS, Division, DivisionOptions, consensus, is_clean, published_fit, split
from utils import UserError


def losses(noisy: int, total: int = 400, seed: int = 0) -> np.ndarray:
    """Small losses, and at the end ``noisy`` large ones."""
    rng = np.random.default_rng(seed)
    clean, wrong = rng.normal(0.2, 0.08, total - noisy), rng.normal(1.0, 0.15, noisy)
    return np.concatenate([clean, wrong]).clip(0).astype(np.float32)


@pytest.mark.parametrize("fit", SETTINGS)
def test_two_clear_modes_are_told_apart(fit):
    part = split(losses(100), SETTINGS[fit], np.random.RandomState(0))
    assert part.clean_N[:300].mean() > 0.98 and part.clean_N[300:].mean() < 0.02
    assert ((part.probability_N > 0.5) == part.clean_N).all()


def test_losses_that_are_all_equal_are_clean():
    for value in (0.0, 3.5):
        part = split(np.full(50, value, np.float32), SETTINGS["robust"], np.random.RandomState(0))
        assert part.clean_N.all()


def test_a_robust_fit_does_not_shrink_to_the_pairs_of_loss_zero():
    """The published settings then call nearly every pair with any loss noisy."""
    rng = np.random.default_rng(0)
    parts = [np.zeros(200), rng.exponential(0.15, 100), rng.normal(1.0, 0.3, 100).clip(0.3)]
    hinge_N = np.concatenate(parts).astype(np.float32)
    fits = {name: split(hinge_N, SETTINGS[name], np.random.RandomState(0)).clean_N for name in ("tight", "robust")}
    assert fits["tight"][200:300].mean() < 0.1
    assert fits["robust"][200:300].mean() > 0.5 and fits["robust"][:200].all() and not fits["robust"][300:].any()


def test_the_threshold_where_all_look_clean():
    probability_N = np.linspace(0.6, 1.0, 250)
    assert not is_clean(probability_N)[:3].any() and is_clean(probability_N)[3:].all()
    assert is_clean(np.array([0.4, 0.9])).tolist() == [False, True]


def test_a_coin_decides_where_embeddings_disagree():
    both, none, one = np.array([True] * 300), np.array([False] * 300), np.arange(300) % 2 == 0
    generator = torch.Generator().manual_seed(0)
    assert consensus([both, both], generator).all() and not consensus([none, none], generator).any()
    labels_N = consensus([both, one], generator)
    assert labels_N[::2].all() and 0.35 < labels_N[1::2].mean() < 0.65
    assert consensus([one], generator).tolist() == one.tolist()


@pytest.mark.parametrize(("rate", "name", "fit"), [(0.0, "CUHK-PEDES", "loose"), (0.5, "CUHK-PEDES", "tight")])
def test_settings_of_the_published_program(rate, name, fit):
    assert published_fit(rate, name) == fit
    assert published_fit(rate, "RSTPReid") == "tight"


def make(**options: str) -> Division:
    return Division(DivisionOptions(division_fit="robust", **options), 400)


def test_a_division_is_a_function_of_seed_and_epoch(messages):
    loss_KN = torch.from_numpy(np.stack([losses(100), losses(100, seed=1).copy()]))
    loss_KN[1, :80] = 1.0  # on which the embeddings disagree
    matched_N = torch.arange(400) < 300
    labels = []
    for seed, epoch in ((1, 1), (1, 1), (1, 2), (2, 1)):
        division = make()
        report = division.divide(loss_KN, seed, epoch, matched_N)
        labels.append(division.clean.tolist())
    assert labels[0] == labels[1] and labels[0] != labels[2] and labels[0] != labels[3]
    assert division.clean[300:].sum() <= 2 and division.clean[80:300].float().mean() > 0.95
    assert report["uncertain"] == pytest.approx(80, abs=8) and report["noisy"] == pytest.approx(100, abs=3)
    assert report["precision"] > 95 and report["recall"] > 95 and report["used_matched"] > 95
    assert re.match("division before epoch 1: .* Of the 100 exchanged captions", messages.messages[-1])


@pytest.mark.parametrize(("noisy", "warned"), [(300, False), (370, True)])
def test_a_division_that_leaves_hardly_any_pairs_is_warned_of(noisy: int, warned: bool, messages):
    make().divide(torch.from_numpy(np.stack([losses(noisy)] * 2)), 1, 2)
    found = re.search(r"before epoch 2: only (\d+) of 400 pairs are used", messages.text)
    assert bool(found) == warned and (not warned or int(found[1]) == pytest.approx(30, abs=3))


def test_labels_are_no_weights():
    assert make().state_dict() == {} and dict(make().named_buffers())["clean"].all()


def test_a_loss_that_is_not_finite_is_named():
    loss_KN = torch.zeros(2, 400)
    loss_KN[1, 7] = torch.nan
    with pytest.raises(UserError, match="division before epoch 3: the loss of training pair 7 is not finite"):
        make().divide(loss_KN, 1, 3)


def test_when_it_is_on():
    assert not DivisionOptions().is_on and DivisionOptions(select_ratio=0.3).is_on
    assert DivisionOptions(division="consensus").is_on
    assert not DivisionOptions(select_ratio=0.3, division="none").is_on
