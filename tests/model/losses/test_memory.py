"""Memory banks and their losses against plain loops."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from model.backbones.spec import Encoded
from model.batch_views import Views
from model.build import momentum_flag
from model.losses.bank import Bank, BankOptions, turns
from model.losses.base import PairFeatures, Sizes
from model.losses.instance_memory import InstanceMemory, multi_positive_loss
from model.losses.memory import Memory
from solver.optimizer import SolverOptions
from utils.command import parse


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


def test_instance_loss_counts_every_row_of_the_identity():
    torch.manual_seed(0)
    logits, own, rows = torch.randn(3, 5), torch.tensor([0, 2, 1]), torch.tensor([0, 1, 2, 0, 1])
    terms = [
        -torch.log(sum(logits[b, r].exp() for r in range(5) if rows[r] == own[b]) / logits[b].exp().sum() + 1e-8)
        for b in range(3)
    ]
    torch.testing.assert_close(multi_positive_loss(logits, own, rows), torch.stack(terms).mean())


@pytest.mark.parametrize("kind", [Memory, InstanceMemory])
def test_a_head_from_filling_to_update(kind):
    torch.manual_seed(0)
    head = kind(BankOptions(), Sizes(8, 100, 3, 6, 4))
    image_ids, pids = torch.tensor([0, 0, 1, 2, 3, 3]), torch.tensor([0, 0, 1, 1, 2, 2])
    head.fill_bank(PairFeatures(torch.randn(6, 8), torch.randn(6, 8), pids, image_ids))

    def encode(features: torch.Tensor) -> Encoded:
        return Encoded(features[:, None], features, features.new_zeros(()))

    batch = {"images": torch.randn(2, 8, requires_grad=True), "caption_ids": torch.randn(2, 8)}
    batch |= {"pids": torch.tensor([1, 1]), "image_ids": torch.tensor([1, 2])}

    views = Views(batch, encode, encode, {}, nullcontext, 1)
    term = head(views)
    term.loss.backward()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.after_step(views)
    changed = {
        n: (value != before[n]).reshape(len(value), -1).any(1).nonzero().flatten().tolist()
        for n, value in head.state_dict().items()
    }
    expected = [1] if kind is Memory else [1, 2]
    assert changed["bank.image"] == changed["bank.text"] == expected
    assert sum(term.metrics.values()).item() == pytest.approx(head.weight * term.loss.item(), rel=1e-5)


@pytest.mark.parametrize(("losses", "bank", "sgd"), [("TAL+memory", 0.3, 0.9), ("sdm", 0.1, 0.3)])
def test_momentum_means_what_the_losses_make_of_it(losses, bank, sgd, tmp_path):
    file = tmp_path / "configs.yaml"
    file.write_text("momentum: 0.3\n")
    for argv in (["--momentum", "0.3"], ["--config_file", str(file)]):
        options = parse({"all": [BankOptions, SolverOptions]}, argv, "").moved("momentum", momentum_flag(losses))
        assert (options.get(BankOptions).bank_momentum, options.get(SolverOptions).sgd_momentum) == (bank, sgd)
    options = parse({"all": [BankOptions, SolverOptions]}, [*argv, "--bank_momentum", "0.5"], "")
    assert options.renamed("momentum", "bank_momentum").get(BankOptions).bank_momentum == 0.5
