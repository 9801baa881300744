"""The losses of one similarity matrix against plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from model.losses.base import cosines
from model.losses.cmpm import cmpm_loss
from model.losses.itc import itc_rows
from model.losses.sdm import sdm_rows

B, D = 7, 12


def itc_loss(image: torch.Tensor, text: torch.Tensor, scale: float) -> torch.Tensor:
    logits = scale * cosines(image, text)
    return (itc_rows(logits) + itc_rows(logits.T)).mean()


def sdm_loss(image: torch.Tensor, text: torch.Tensor, pids: torch.Tensor, scale: float) -> torch.Tensor:
    logits = scale * cosines(image, text)
    return (sdm_rows(logits, pids) + sdm_rows(logits.T, pids)).mean()


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pids = torch.tensor([3, 1, 3, 2, 1, 3, 9])
    return torch.randn(B, D, generator=generator), torch.randn(B, D, generator=generator), pids


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a @ b / a.norm() / b.norm()).item()


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = sum(math.exp(x - top) for x in row)
    return [math.exp(x - top) / total for x in row]


def kl(rows: list[list[float]], targets: list[list[float]]) -> float:
    total = 0.0
    for logits, target in zip(rows, targets, strict=True):
        p = softmax(logits)
        total += sum(p[j] * (math.log(p[j]) - math.log(target[j] + 1e-8)) for j in range(len(p)))
    return total / len(rows)


def test_itc(features):
    image, text, _ = features
    total = 0.0
    for i in range(B):
        rows = softmax([50 * cosine(image[i], text[j]) for j in range(B)])
        columns = softmax([50 * cosine(image[j], text[i]) for j in range(B)])
        total += -math.log(rows[i]) - math.log(columns[i])
    assert itc_loss(image, text, 50).item() == pytest.approx(total / (2 * B), rel=1e-4)


def test_sdm(features):
    image, text, pids = features
    same = [[float(pids[i] == pids[j]) for j in range(B)] for i in range(B)]
    target = [[x / sum(row) for x in row] for row in same]
    rows = [[50 * cosine(image[i], text[j]) for j in range(B)] for i in range(B)]
    columns = [[rows[j][i] for j in range(B)] for i in range(B)]
    assert sdm_loss(image, text, pids, 50).item() == pytest.approx(kl(rows, target) + kl(columns, target), rel=1e-4)


def test_cmpm(features):
    image, text, pids = features
    same = [[float(pids[i] == pids[j]) for j in range(B)] for i in range(B)]
    target = [[x / math.sqrt(sum(row)) for x in row] for row in same]
    rows = [[(image[i] @ text[j] / text[j].norm()).item() for j in range(B)] for i in range(B)]
    columns = [[(text[i] @ image[j] / image[j].norm()).item() for j in range(B)] for i in range(B)]
    assert cmpm_loss(image, text, pids).item() == pytest.approx(kl(rows, target) + kl(columns, target), rel=1e-4)


@pytest.mark.parametrize("loss", [lambda i, t, p: itc_loss(i, t, 50), lambda i, t, p: sdm_loss(i, t, p, 50)])
def test_length_of_features_does_not_matter(features, loss):
    image, text, pids = features
    torch.testing.assert_close(loss(3 * image, 0.1 * text, pids), loss(image, text, pids))


def test_sdm_falls_when_matches_move_together(features):
    image, text, pids = features
    centre = F.normalize(torch.randn(10, D, generator=torch.Generator().manual_seed(1)))[pids]
    assert sdm_loss(image + 5 * centre, text + 5 * centre, pids, 50) < sdm_loss(image, text, pids, 50)
