"""The losses over memory banks, from filling to update."""

import pytest
import torch
import torch.nn.functional as F

from model.losses.bank import BankOptions
from model.losses.base import PairFeatures, Sizes, TrainingPass
from model.losses.instance_memory import InstanceMemory
from model.losses.memory import Memory
from tests.helpers.views import views_of

PIDS, IMAGE_IDS = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 1, 2, 3, 3])


def make_head(kind: type[Memory] | type[InstanceMemory]) -> Memory | InstanceMemory:
    torch.manual_seed(0)
    return kind(BankOptions(), Sizes(8, 100, 3, 6, 4))


def training_pass(epoch: int) -> TrainingPass:
    return TrainingPass(epoch, lambda: PairFeatures(torch.randn(6, 8), torch.randn(6, 8), PIDS, IMAGE_IDS))


@pytest.mark.parametrize("kind", [Memory, InstanceMemory])
def test_a_head_from_filling_to_update(kind):
    head = make_head(kind)
    head.before_epoch(training_pass(1))
    image = torch.randn(2, 8, requires_grad=True)
    views = views_of(image, torch.randn(2, 8), pids=[1, 1], image_ids=[1, 2])
    term = head(views)
    term.loss.backward()
    assert image.grad.any()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.after_step(views)
    changed = {
        n: (value != before[n]).reshape(len(value), -1).any(1).nonzero().flatten().tolist()
        for n, value in head.state_dict().items()
    }
    expected = [1] if kind is Memory else [1, 2]
    assert changed["bank.image"] == changed["bank.text"] == expected
    assert sum(term.metrics.values()).item() == pytest.approx(head.weight * term.loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", [Memory, InstanceMemory])
def test_the_bank_is_filled_before_the_first_epoch_only(kind):
    head, features = make_head(kind), training_pass(1).features
    rows = PIDS if kind is Memory else IMAGE_IDS
    head.before_epoch(TrainingPass(1, lambda: features))
    for row in rows.unique():
        expected = F.normalize(F.normalize(features.text_ND[rows == row], dim=1).mean(dim=0), dim=0)
        torch.testing.assert_close(head.bank.text[row], expected)
    before = head.bank.text.clone()
    head.before_epoch(TrainingPass(2, lambda: pytest.fail("encoded for nothing")))
    assert torch.equal(head.bank.text, before)
