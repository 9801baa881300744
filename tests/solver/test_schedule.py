"""Learning rates against recorded ones."""

import json
from pathlib import Path

import pytest

from solver.schedule import ScheduleOptions, learning_rate
from tests.helpers.golden import core_params


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
