"""Noise-aware masking: probabilities against a naive loop, what is masked, and the scores."""

import math

import pytest
import torch
from torch import nn

from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.losses.nam import RATE, best_patch, masked, masking_probabilities, read_early
from utils import UserError


def naive(scores: list[float], words: list[bool]) -> list[float]:
    """The paper's formula, token by token."""
    valid = [1 - score for score, word in zip(scores, words, strict=True) if word]
    mean = sum(valid) / max(len(valid), 1)
    found = []
    for score, word in zip(scores, words, strict=True):
        if not word:
            found.append(0.0)
        elif math.isnan(score):
            found.append(0.15)
        else:
            found.append(min(1.0, max(0.0, (1 - score) - mean + 0.15)))
    return found


def test_probabilities():
    torch.manual_seed(0)
    score_BL = torch.rand(5, 8) * 2 - 1
    score_BL[1] = torch.nan
    word_BL = torch.rand(5, 8) < 0.7
    word_BL[2] = False
    probability_BL = masking_probabilities(score_BL, word_BL)
    for row in range(5):
        assert probability_BL[row].tolist() == pytest.approx(naive(score_BL[row].tolist(), word_BL[row].tolist()))
    assert probability_BL[0][word_BL[0]].max() > RATE  # what the image does not show


def test_at_least_the_first_word_is_masked():
    ids_BL, hidden_BL = torch.arange(1, 7).repeat(3, 1), torch.full((3, 6), 99)
    word_BL = torch.tensor([[0, 1, 1, 1, 0, 0]] * 2 + [[0] * 6]).bool()
    probability_BL = word_BL * torch.tensor([[0.5], [0.0], [0.0]])
    draw_BL = torch.tensor([[0.9, 0.9, 0.1, 0.4, 0.0, 0.0]]).repeat(3, 1)
    found = masked(ids_BL, hidden_BL, draw_BL, probability_BL, word_BL).tolist()
    assert found == [[1, 2, 99, 99, 5, 6], [1, 99, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]


def test_the_best_patch():
    torch.manual_seed(0)
    text_BLD, patch_BPD = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    found = best_patch(text_BLD, patch_BPD)
    for row in range(2):
        for word in range(3):
            best = max(torch.cosine_similarity(text_BLD[row, word], patch, dim=0).item() for patch in patch_BPD[row])
            assert found[row, word].item() == pytest.approx(best, abs=1e-6)


def test_tokens_before_the_end_are_those_of_shorter_towers():
    """Both towers without their last two blocks give the same, and nothing of the others is computed."""
    torch.manual_seed(0)
    backbone = load_backbone(BackboneOptions("small", (64, 32))).eval()
    images_BCHW = torch.randn(2, 3, 64, 32)
    ids_BL = torch.randint(1, 1000, (2, 9))
    lengths_B = torch.tensor([9, 5])
    whole = backbone.encode_image(images_BCHW)
    assert whole.early is None
    blocks = backbone.visual.transformer.resblocks
    read_early(backbone, "nam")
    found = backbone.encode_image(images_BCHW)
    assert torch.equal(found.pooled, whole.pooled) and not found.early.requires_grad
    early_text = backbone.early_text(ids_BL, lengths_B)
    backbone.visual.transformer.resblocks = nn.ModuleList(blocks[:-2])
    backbone.text.transformer.resblocks = nn.ModuleList(backbone.text.transformer.resblocks[:-2])
    backbone.early_blocks = 0
    assert torch.allclose(found.early, backbone.encode_image(images_BCHW).tokens[:, 1:], atol=1e-6)
    assert torch.allclose(early_text, backbone.encode_text(ids_BL, lengths_B).tokens, atol=1e-6)


def test_towers_that_cannot_are_refused(monkeypatch):
    backbone = load_backbone(BackboneOptions("tiny", (64, 32)))
    monkeypatch.setattr(type(backbone), "gives_early", False)
    with pytest.raises(UserError, match="--loss_names nam: clip does not give the tokens from inside its towers"):
        read_early(backbone, "nam")
