"""Means over an epoch, of scalars that not every step reports."""

from dataclasses import asdict

import pytest

from processor.progress import Progress


def test_each_scalar_is_averaged_over_the_steps_that_reported_it():
    progress = Progress()
    assert progress.means() == {}
    for report in ({"loss": 1.0}, {"loss": 2.0, "odd": 10.0}, {"loss": 3.0}, {"loss": 4.0, "odd": 30.0, "late": -1.0}):
        progress.add(report)
    assert progress.means() == pytest.approx({"loss": 2.5, "odd": 20.0, "late": -1.0})
    resumed = Progress(**asdict(progress))
    resumed.add({"odd": 20.0})
    assert resumed.means() == pytest.approx({"loss": 2.5, "odd": 20.0, "late": -1.0})
    assert Progress().sums == {}, "epochs do not share their sums"
