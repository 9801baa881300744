"""TAL against nested loops."""

import math

import pytest
import torch

from model.losses.base import cosines
from model.losses.tal import tal_rows


def tal_loss(image, text, pids, tau, margin):
    cosine = cosines(image, text)
    return (tal_rows(cosine, pids, tau, margin) + tal_rows(cosine.T, pids, tau, margin)).sum()


def naive(image, text, pids, tau, margin):
    total = 0.0
    cosine = [[torch.cosine_similarity(i, t, dim=0).item() for t in text] for i in image]
    for table in (cosine, [list(column) for column in zip(*cosine, strict=True)]):
        for row, own in zip(table, pids, strict=True):
            same = [s for s, pid in zip(row, pids, strict=True) if pid == own]
            other = [s for s, pid in zip(row, pids, strict=True) if pid != own]
            weights = [math.exp(s / tau) for s in same]
            positive = sum(w * s for w, s in zip(weights, same, strict=True)) / sum(weights)
            if other:
                total += max(0.0, margin - positive + tau * math.log(sum(math.exp(s / tau) for s in other)))
    return total


@pytest.mark.parametrize("pids", [[0, 1, 2, 3, 4], [0, 0, 1, 0, 2], [7, 7, 7, 7, 7]])
@pytest.mark.parametrize(("tau", "margin"), [(0.02, 0.2), (0.1, 0.05)])
def test_equals_the_loops(pids, tau, margin):
    torch.manual_seed(len(set(pids)))
    image, text = torch.randn(5, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    loss = tal_loss(image, text, torch.tensor(pids), tau, margin)
    assert loss.item() == pytest.approx(naive(image.detach(), text.detach(), pids, tau, margin), rel=1e-4)
    loss.backward()
    for feature in (image, text):
        assert torch.isfinite(feature.grad).all()
        assert feature.grad.any() == (len(set(pids)) > 1)


def test_the_weights_of_positives_have_no_gradient():
    torch.manual_seed(0)
    image, text = torch.randn(4, 8, requires_grad=True), torch.randn(4, 8)
    tal_loss(image, text, torch.tensor([0, 0, 1, 1]), 1.0, 5.0).backward()
    ours = image.grad
    unit_I, unit_T = (torch.nn.functional.normalize(x.detach(), dim=1) for x in (image, text))
    cosine = (unit_I @ unit_T.T).requires_grad_()
    same = torch.tensor([0, 0, 1, 1])[:, None] == torch.tensor([0, 0, 1, 1])
    total = 0
    for table in (cosine, cosine.T):
        weights = table.detach().exp() * same
        positive = (weights / weights.sum(dim=1, keepdim=True) * table).sum(dim=1)
        total = total + (5.0 - positive + (table.exp() * ~same).sum(dim=1).log()).sum()
    total.backward()
    reference = torch.nn.functional.normalize(image, dim=1) @ unit_T.T
    image.grad = None
    reference.backward(cosine.grad)
    torch.testing.assert_close(image.grad, ours)
