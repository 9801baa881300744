"""Learning rates against recorded ones."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from solver.schedule import Schedule, ScheduleOptions, learning_rate, learning_rate_of_step
from tests.helpers.golden import core_params
from utils import UserError


@pytest.mark.parametrize("folder", core_params())
def test_golden_schedules(folder: Path):
    recorded = json.loads((folder / "core.json").read_text())["lr_schedule"]
    for name, rates in recorded["lr_in_epoch_1_to_20"].items():
        shape, warmup = name.split("/")
        options = ScheduleOptions(
            num_epoch=recorded["total_epochs"],
            lrscheduler=shape,
            warmup_method=warmup,
            **{key: recorded[key] for key in ("warmup_epochs", "warmup_factor", "target_lr", "power", "gamma")},
            milestones=tuple(recorded["milestones"]),
        )
        ours = [learning_rate(recorded["base_lr"], epoch, options) for epoch in range(1, len(rates) + 1)]
        assert ours == pytest.approx(rates, rel=1e-6), name


def optimizer_with(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "base_lr": rate} for rate in rates])


def test_every_group_gets_its_rate_of_the_epoch_whatever_the_step():
    options = ScheduleOptions(num_epoch=10, warmup_epochs=2)
    optimizer = optimizer_with(1e-5, 5e-5)
    schedule = Schedule(optimizer, options)
    assert schedule.num_epoch == 10
    for epoch, step in ((1, 0), (3, 7), (10, 2), (2, 5)):
        schedule.set(epoch, step, 8)
        expected = [learning_rate(rate, epoch, options) for rate in (1e-5, 5e-5)]
        assert [group["lr"] for group in optimizer.param_groups] == expected
        assert [group["base_lr"] for group in optimizer.param_groups] == [1e-5, 5e-5]


def test_rates_are_named_by_what_they_are_at_full_height():
    optimizer = optimizer_with(1e-5, 5e-5, 1e-5)
    schedule = Schedule(optimizer, ScheduleOptions(warmup_epochs=5, warmup_factor=0.1))
    schedule.set(1, 0, 4)
    assert schedule.rates() == pytest.approx({"1e-05": 1e-6, "5e-05": 5e-6})


def test_milestones_that_fall_are_refused():
    with pytest.raises(UserError, match="--milestones 50 20: expected rising epochs"):
        ScheduleOptions(milestones=(50, 20))


def test_from_step_to_step_a_group_keeps_its_factor_to_the_end():
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "base_lr": rate} for rate in (1e-4, 5e-4)], lr=1e-4
    )
    options = ScheduleOptions(schedule_per="step", num_epoch=3, warmup_epochs=1, warmup_factor=0.01, target_lr=5e-6)
    schedule, seen = Schedule(optimizer, options), []
    for number in range(12):
        schedule.set(number // 4 + 1, number % 4, 4)
        low, high = (group["lr"] for group in optimizer.param_groups)
        assert high == pytest.approx(5 * low)
        seen.append(low)
    assert seen[0] == pytest.approx(1e-6) and seen[3] == seen[4] == pytest.approx(1e-4)
    assert seen[4:] == sorted(seen[4:], reverse=True) and seen[-1] > 5e-6


@pytest.mark.parametrize("shape", ["cosine", "step", "exp", "poly", "linear"])
def test_the_first_step_of_an_epoch_after_warmup_has_the_rate_of_the_epoch(shape: str):
    options = ScheduleOptions(num_epoch=8, warmup_epochs=2, lrscheduler=shape, milestones=(3, 6), target_lr=1e-6)
    for epoch in range(3, 9):
        of_step = learning_rate_of_step(1e-4, 1e-6, epoch, 0, 7, options)
        assert of_step == pytest.approx(learning_rate(1e-4, epoch, options))
