"""The mixture of experts against a loop over tokens."""

import pytest
import torch
import torch.nn.functional as F

from model.adapters.experts import MixtureOfExperts, load_balance


def mixture(topk: int = 2) -> MixtureOfExperts:
    torch.manual_seed(0)
    moe = MixtureOfExperts(width=16, reduction=4, experts=5, topk=topk)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return moe.eval()


def one_by_one(moe: MixtureOfExperts, tokens: torch.Tensor, task: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, token by token and expert by expert."""
    parts, counts = moe.experts, torch.zeros(len(moe.expert_count), dtype=torch.long)
    out = torch.empty_like(tokens)
    for row, x in enumerate(tokens):
        logits = (1 - moe.alpha) * moe.input_gate(x) + moe.alpha * moe.task_gate(task)
        chosen = logits.argsort(descending=True)[: moe.topk].tolist()
        weights = torch.tensor([logits[e] for e in chosen]).softmax(0)
        out[row] = 0
        for weight, e in zip(weights, chosen, strict=True):
            hidden = F.layer_norm(x, x.shape, parts.norm.weight[e], parts.norm.bias[e])
            hidden = F.gelu(F.linear(hidden, parts.down.weight[e], parts.down.bias[e]))
            out[row] += weight * (x + F.linear(hidden, parts.up.weight[e], parts.up.bias[e]))
            counts[e] += 1
    return out, counts


@pytest.mark.parametrize("topk", [1, 2, 5])
@torch.no_grad()
def test_the_dense_mixture_equals_its_definition(topk: int):
    moe, task = mixture(topk), torch.randn(16)
    tokens = torch.randn(3, 4, 16)
    routed = moe(tokens, task)
    expected, counts = one_by_one(moe, tokens.flatten(0, 1), task)
    torch.testing.assert_close(routed.out.flatten(0, 1), expected, atol=1e-6, rtol=1e-5)
    assert routed.routing_2E[1].tolist() == counts.tolist()


def test_load_balance_is_least_when_all_experts_are_used_alike():
    even, one = torch.full((4,), 2.0), torch.tensor([8.0, 0.0, 0.0, 0.0])
    assert load_balance(torch.stack([even, even])[None]).item() == pytest.approx(1 / 4)
    assert load_balance(torch.stack([one, one])[None]).item() == pytest.approx(1.0)
    assert load_balance(torch.stack([torch.stack([even, even]), torch.stack([one, one])])).item() == pytest.approx(1.25)


def test_a_fresh_mixture_is_the_identity():
    moe = MixtureOfExperts(width=16, reduction=4, experts=5, topk=2).eval()
    tokens = torch.randn(7, 16)
    torch.testing.assert_close(moe(tokens, torch.randn(16)).out, tokens)


def test_dropout_acts_in_training_only():
    moe, tokens, task = mixture(), torch.randn(7, 16), torch.randn(16)
    assert torch.equal(moe(tokens, task).out, moe(tokens, task).out)
    moe.train()
    assert not torch.equal(moe(tokens, task).out, moe(tokens, task).out)
