"""Means over an epoch, of scalars that not every step reports; and when there is a new best.pth."""

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


@pytest.mark.parametrize(
    ("metrics", "better"),
    [
        ({"R1": 41.0, "mAP": 30.0}, True),
        ({"R1": 40.0, "mAP": 36.0}, False),
        ({"R1": 40.0, "mAP": 35.0}, True),
        ({"R1": 39.0, "mAP": 50.0}, False),
    ],
)
def test_best_is_the_first_of_equal_r1_and_the_last_of_equal_metrics(metrics: dict, better: bool):
    assert Progress(best={"R1": 40.0, "mAP": 35.0, "epoch": 2}).is_best(metrics) == better
    assert Progress().is_best(metrics)
