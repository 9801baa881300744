"""Dual masking: both probabilities against the formula, and what a batch gives."""

import math
from pathlib import Path

import pytest
import torch

from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.build import LossOptions, build_retriever
from model.losses.dual_masking import noise_probabilities, telling_probabilities
from model.retriever import Retriever

SIZE = (64, 32)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_probabilities():
    scores = [-1.0, 0.0, 0.05, 0.1, 0.3, 1.0]
    noise, telling = (make(torch.tensor(scores)).tolist() for make in (noise_probabilities, telling_probabilities))
    assert noise == pytest.approx([0.2 * sigmoid(20 * (1 - score - 0.9)) for score in scores], abs=1e-6)
    assert telling == pytest.approx([0.3 * sigmoid(20 * (score - 0.1)) for score in scores], abs=1e-6)
    assert noise_probabilities(torch.tensor([torch.nan])).tolist() == pytest.approx([0.15])


def make(loss: str) -> Retriever:
    torch.manual_seed(0)
    given = {LossOptions: LossOptions(loss_names=loss)}
    backbone = load_backbone(BackboneOptions("tiny", SIZE))
    return build_retriever(backbone, lambda kind: given.get(kind) or kind(), ids=3, images=6, pairs=6)


def batch_of(index: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids_BL = torch.zeros(len(index), 77, dtype=torch.int64)
    ids_BL[:, :9] = torch.randint(1, 1000, (len(index), 9), generator=generator)
    word_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    word_BL[:, 1:8] = True
    return {
        "images": torch.randn(len(index), 3, *SIZE, generator=generator),
        "caption_ids": ids_BL,
        "caption_ids_lengths": torch.full((len(index),), 9),
        "pids": torch.tensor(index) // 2,
        "index": torch.tensor(index),
        "mask_draws": torch.rand(ids_BL.shape, generator=generator),
        "mask_hidden": torch.full_like(ids_BL, 49405),
        "mask_words": word_BL,
    }


@pytest.mark.parametrize("loss", ["nam", "dual_masking"])
def test_a_batch_leaves_scores_that_change_the_next_visit(loss: str, tmp_path: Path):
    model = make(loss)
    model.open_files(tmp_path, 0)
    batch = batch_of([0, 3, 5, 1])
    first, _ = model(batch)
    first.loss.backward()
    grads = {name: value.grad for name, value in model.named_parameters()}
    unused = [name for name, grad in grads.items() if grad is None]
    assert all(torch.isfinite(grad).all() for grad in grads.values() if grad is not None)
    assert unused == []
    scores = model.heads[loss]._scores.read(torch.tensor([0, 3, 5, 1, 2]).numpy())
    assert not math.isnan(scores[0, 1]) and math.isnan(scores[4, 1])
    again, _ = model(batch)
    assert again.loss != first.loss  # other probabilities, the same draws
    model.open_files(tmp_path, 0)
    assert torch.equal(model(batch)[0].loss, first.loss)


def test_its_loss_is_the_sum_of_both(tmp_path: Path):
    model = make("dual_masking")
    model.open_files(tmp_path, 0)
    report = model(batch_of([0, 3, 5, 1]))[0].report
    both = report["dual_masking_sdm"] + 0.4 * report["dual_masking_mlm"]
    assert report["dual_masking_loss"].item() == pytest.approx(both.item(), rel=1e-6)
    assert 8 < report["dual_masking_mlm"] < 14  # chance among 49,408 words is 10.8 nats
