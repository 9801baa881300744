"""The moving average of weights: against the plain formula, in the model's place, and saved."""

import pytest
import torch
from torch import nn

from solver.average import WeightAverage


def model() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    made[0].bias.requires_grad_(False)
    return made


def test_the_formula():
    trained = model()
    average, expected = WeightAverage(trained, 0.9), trained[2].weight.detach().clone()
    for _ in range(5):
        with torch.no_grad():
            for value in trained.parameters():
                value.add_(torch.randn_like(value))
        average.update()
        expected = 0.9 * expected + 0.1 * trained[2].weight.detach()
    now = trained[2].weight.detach().clone()
    with average.in_place():
        assert torch.allclose(trained[2].weight, expected, atol=1e-6)
        assert torch.equal(average.state_dict()["2.weight"], now)
    assert torch.equal(trained[2].weight, now)
    assert "0.bias" not in average.state_dict()


def test_an_error_while_it_is_in_place_leaves_the_weights():
    trained = model()
    average = WeightAverage(trained, 0.5)
    with torch.no_grad():
        trained[0].weight.add_(1)
    now = trained[0].weight.detach().clone()
    with pytest.raises(RuntimeError), average.in_place():
        raise RuntimeError
    assert torch.equal(trained[0].weight, now)


def test_saved_and_loaded():
    trained = model()
    average = WeightAverage(trained, 0.5)
    with torch.no_grad():
        trained[0].weight.add_(1)
    average.update()
    other = WeightAverage(trained, 0.5)
    assert not torch.equal(other.state_dict()["0.weight"], average.state_dict()["0.weight"])
    other.load_state_dict({name: value.clone() for name, value in average.state_dict().items()})
    assert torch.equal(other.state_dict()["0.weight"], average.state_dict()["0.weight"])
    with pytest.raises(ValueError, match="is of other weights, or --ema was not the same"):
        other.load_state_dict({})


def test_without_a_decay_nothing_happens():
    trained = model()
    average, now = WeightAverage(trained, None), trained[0].weight.detach().clone()
    average.update()
    with average.in_place():
        assert torch.equal(trained[0].weight, now)
    assert average.state_dict() == {}
    average.load_state_dict({})
