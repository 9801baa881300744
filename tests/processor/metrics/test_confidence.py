"""Intervals and the paired test against explicit loops, scipy and all exchanges there are."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from processor.metrics import confidence
from processor.metrics.confidence import (
    Sums,
    bootstrap,
    compare_queries,
    interval_rows,
    intervals,
    sum_by_identity,
)
from processor.metrics.ranks import QueryMetrics
from utils import UserError


def queries_of(r1: list[float], first: list[int] | None = None) -> QueryMetrics:
    ranks = torch.tensor(first or [1] * len(r1))
    values = torch.tensor(r1).double()
    return QueryMetrics(ranks, {"R1": values, "mAP": values.square() / 2 + 0.1})


def drawn(seed: int, identities: int = 40) -> tuple[QueryMetrics, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pids = torch.arange(identities).repeat_interleave(torch.randint(1, 6, (identities,), generator=generator)) + 100
    values = torch.rand(len(pids), generator=generator).double().round()
    return queries_of(values.tolist()), pids


def test_sums_leave_out_queries_without_a_match():
    found = sum_by_identity(queries_of([1, 0, 1, 0, 1], [1, 2, 0, 5, 1]), torch.tensor([7, 3, 7, 7, 9]))
    assert found.count_IK.tolist() == [[1, 1], [2, 2], [1, 1]]
    assert found.value_IK[:, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("room", [1, 130, 1 << 22])
def test_a_resampling_is_a_mean_over_identities_drawn_with_all_their_queries(monkeypatch, room: int):
    monkeypatch.setattr(confidence, "_CHUNK_ELEMENTS", room)
    queries, pids = drawn(0)
    drawn_BI = []

    def randint(high: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        drawn_BI.extend(original(high, size, generator=generator).tolist())
        return torch.tensor(drawn_BI[-size[0] :])

    original = torch.randint
    monkeypatch.setattr(torch, "randint", randint)
    found = bootstrap(sum_by_identity(queries, pids), 7)
    names = pids.unique().tolist()
    for metrics, chosen in zip(found.tolist(), drawn_BI, strict=True):
        rows = [row for number in chosen for row in (pids == names[number]).nonzero().flatten().tolist()]
        for value, expected in zip(metrics, queries.values.values(), strict=True):
            assert value == pytest.approx(100 * expected[rows].mean().item())


def test_intervals_are_those_of_scipy_and_the_same_at_every_call():
    queries, pids = drawn(1, 80)
    rows = interval_rows(queries, pids)
    assert rows == interval_rows(queries, pids)
    assert list(rows) == ["95 % from", "95 % to"] and list(rows["95 % to"]) == ["R1", "mAP"]
    sums = sum_by_identity(queries, pids)

    def mean(number: np.ndarray, axis: int) -> np.ndarray:
        return 100 * sums.value_IK[:, 0].numpy()[number].sum(axis) / sums.count_IK[:, 0].numpy()[number].sum(axis)

    theirs = scipy.stats.bootstrap(
        (np.arange(80),), mean, n_resamples=9999, method="percentile", random_state=0, vectorized=True
    ).confidence_interval
    assert rows["95 % from"]["R1"] == pytest.approx(theirs.low, abs=0.5)
    assert rows["95 % to"]["R1"] == pytest.approx(theirs.high, abs=0.5)
    assert rows["95 % from"]["R1"] < 100 * queries.values["R1"].mean() < rows["95 % to"]["R1"]


def test_metrics_of_other_queries_each():
    """A metric that only some identities have: resamplings without any of these do not count."""
    value_IK = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 2.0]]).double()
    count_IK = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 4.0]]).double()
    low, high = intervals(Sums(value_IK, count_IK))
    assert low.tolist() == [0, 50] and high.tolist() == [100, 50]


def test_one_identity_has_no_interval():
    with pytest.raises(UserError, match="1 identities with a match in the gallery: a confidence needs at least 2"):
        interval_rows(queries_of([1, 0]), torch.tensor([4, 4]))


def test_the_p_value_is_that_of_all_exchanges():
    pids = torch.tensor([0, 0, 1, 2, 2, 3, 4, 5, 6, 6, 7])
    one = queries_of([1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1])
    other = queries_of([0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0])
    found = compare_queries(one, other, pids)["R1"]
    gap = [float((one.values["R1"] - other.values["R1"])[pids == pid].sum()) for pid in range(8)]
    reached = [abs(np.dot(signs, gap)) >= abs(sum(gap)) - 1e-9 for signs in itertools.product((1, -1), repeat=8)]
    assert found.p == pytest.approx(np.mean(reached), abs=0.015)
    assert found.value == pytest.approx(100 * sum(gap) / 11)
    assert found.low < found.value < found.high


def test_who_is_the_same_differs_by_chance_and_who_is_better_does_not():
    queries, pids = drawn(2)
    same = compare_queries(queries, queries, pids)["R1"]
    assert same == (0, 0, 0, 1)
    perfect = queries_of([1.0] * len(pids))
    better, worse = compare_queries(perfect, queries, pids), compare_queries(queries, perfect, pids)
    assert better["R1"].p == worse["R1"].p < 0.001 and better["R1"].low > 0
    assert worse["R1"].value == pytest.approx(-better["R1"].value)


def test_chance_is_called_significant_as_rarely_as_it_says():
    """Of two runs without any difference, p < 0.2 in about one case of five."""
    generator = torch.Generator().manual_seed(0)
    pids = torch.arange(30).repeat_interleave(3)
    low = 0
    for _ in range(200):
        one, other = (queries_of(torch.rand(90, generator=generator).round().tolist()) for _ in range(2))
        low += compare_queries(one, other, pids, resamplings=500)["R1"].p < 0.2
    assert 22 <= low <= 58
