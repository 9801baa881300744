"""Memory banks against plain loops."""

import pytest
import torch
import torch.nn.functional as F

from model.losses.bank import Bank, turns


def sequential(bank, features, rows, momentum):
    """The published rule: sample by sample."""
    bank = bank.clone()
    for row, feature in zip(rows.tolist(), F.normalize(features, dim=1), strict=True):
        bank[row] = F.normalize(momentum * bank[row] + (1 - momentum) * feature, dim=0)
    return bank


def hardest(bank, features, rows, momentum):
    bank, start = bank.clone(), bank
    for row in set(rows.tolist()):
        own = F.normalize(features[rows == row], dim=1)
        worst = own[(own @ start[row]).argmin()]
        bank[row] = F.normalize(momentum * start[row] + (1 - momentum) * worst, dim=0)
    return bank


def filled(rows=6, width=8):
    bank = Bank(rows, width)
    for buffer in bank.buffers():
        buffer.copy_(F.normalize(torch.randn(rows, width), dim=1))
    return bank


@pytest.mark.parametrize("rows", [[0, 1, 2], [3, 3, 3, 3, 3], [0, 5, 0, 2, 5, 0, 1], [4]])
@pytest.mark.parametrize(("hard", "rule"), [(False, sequential), (True, hardest)])
@pytest.mark.parametrize("momentum", [0.1, 0.9])
def test_updates_equal_the_loops(rows, hard, rule, momentum):
    torch.manual_seed(0)
    bank, rows = filled(), torch.tensor(rows)
    image, text = torch.randn(len(rows), 8, requires_grad=True), torch.randn(len(rows), 8)
    expected = rule(bank.image, image.detach(), rows, momentum), rule(bank.text, text, rows, momentum)
    bank.update(image, text, rows, momentum, hard)
    torch.testing.assert_close((bank.image, bank.text), expected)
    assert not bank.image.requires_grad


def test_turns_hold_each_row_once_in_order():
    parts = [part.tolist() for part in turns(torch.tensor([2, 0, 2, 2, 1, 0]))]
    assert parts == [[0, 1, 4], [2, 5], [3]]


def test_fill_takes_the_mean_of_the_normalised_features_of_each_row():
    torch.manual_seed(0)
    image, text, rows = torch.randn(5, 8), torch.randn(5, 8), torch.tensor([1, 0, 1, 3, 1])
    bank = filled(4)
    bank.fill(image, text, rows)
    for row in (0, 1, 3):
        expected = F.normalize(F.normalize(image[rows == row], dim=1).mean(dim=0), dim=0)
        torch.testing.assert_close(bank.image[row], expected)
    assert not bank.text[2].any()
