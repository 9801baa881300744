"""How far a metric can be trusted: bootstrap intervals, and a paired test of two runs on the same queries.

Captions of one person succeed and fail together, so what is resampled are identities, with all their queries. A metric
is a sum over queries divided by their number, which makes a resampling a product of matrices: how often each identity
was drawn, times its sums.

Shape letters: Q queries, I identities, K metrics, B resamplings.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from processor.metrics.ranks import QueryMetrics
from utils import UserError

RESAMPLINGS = 10_000
LEVEL = 0.95
_CHUNK_ELEMENTS = 1 << 22
"""of resamplings x identities that are held at once"""


class Sums(NamedTuple):
    """Metrics by identity, of the queries that have a match."""

    value_IK: Tensor
    """float64, added up over an identity's queries"""
    count_IK: Tensor
    """float64 numbers of queries; all columns are equal unless each metric is of other queries"""


def sum_by_identity(queries: QueryMetrics, pids: Tensor) -> Sums:
    """Sums over the queries of each identity; ``pids``: (Q,) identities of the queries.

    Raises:
        UserError: fewer than two identities have a query with a match, so nothing can be resampled.
    """
    is_matched_Q = queries.first_rank > 0
    pids, inverse_Q = pids.cpu()[is_matched_Q].unique(return_inverse=True)
    if len(pids) < 2:
        raise UserError(f"{len(pids)} identities with a match in the gallery: a confidence needs at least 2")
    value_QK = torch.stack([value_Q[is_matched_Q] for value_Q in queries.values.values()], dim=1)
    value_IK = torch.zeros(len(pids), value_QK.shape[1], dtype=torch.float64).index_add_(0, inverse_Q, value_QK)
    return Sums(value_IK, torch.bincount(inverse_Q, minlength=len(pids)).double()[:, None].expand_as(value_IK))


def sum_by_group(right: Sequence[bool], pids: Sequence[int], groups: Sequence[int]) -> Sums:
    """Sums of single cases, each right or wrong, of one identity, and in one of groups 0, 1, ..., the columns."""
    people, pid_N = torch.tensor(pids).unique(return_inverse=True)
    group_N, right_N = torch.tensor(groups), torch.tensor(right, dtype=torch.float64)
    empty_IK = torch.zeros(len(people), int(group_N.max()) + 1, dtype=torch.float64)
    value_IK = empty_IK.index_put((pid_N, group_N), right_N, accumulate=True)
    return Sums(value_IK, empty_IK.index_put((pid_N, group_N), torch.ones_like(right_N), accumulate=True))


def bootstrap(sums: Sums, resamplings: int = RESAMPLINGS, seed: int = 0) -> Tensor:
    """(B, K) metrics in percent of as many identities drawn with replacement; the same at every call.

    NaN where none of a metric's queries was drawn. Efron and Tibshirani, An Introduction to the Bootstrap, 1993, with
    identities as the units.
    """
    both_IK = torch.cat([sums.value_IK, sums.count_IK], dim=1)
    (identities, metrics), found = sums.value_IK.shape, []
    generator = torch.Generator().manual_seed(seed)
    for size in _chunks(resamplings, identities):
        drawn_BI = torch.randint(identities, (size, identities), generator=generator)
        drawn_BI += torch.arange(size)[:, None] * identities
        times_BI = torch.bincount(drawn_BI.flatten(), minlength=size * identities).view(size, identities)
        value_BK, count_BK = (times_BI.double() @ both_IK).split(metrics, dim=1)
        found.append(100 * value_BK / count_BK)
    return torch.cat(found)


def _chunks(resamplings: int, identities: int) -> Iterator[int]:
    size = max(1, _CHUNK_ELEMENTS // identities)
    for start in range(0, resamplings, size):
        yield min(size, resamplings - start)


def interval_rows(queries: QueryMetrics, pids: Tensor) -> dict[str, dict[str, float]]:
    """Rows ``95 % from`` and ``95 % to`` of a table: percentiles of the bootstrap, in percent.

    ``pids`` and errors as in :func:`sum_by_identity`.
    """
    low_K, high_K = intervals(sum_by_identity(queries, pids))
    names = list(queries.values)
    return {
        f"{LEVEL:.0%} {end}".replace("%", " %"): dict(zip(names, bound_K.tolist(), strict=True))
        for end, bound_K in (("from", low_K), ("to", high_K))
    }


def intervals(sums: Sums, resamplings: int = RESAMPLINGS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds (K,) of the 95 % intervals, in percent: percentiles of :func:`bootstrap`."""
    bounds = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low_K, high_K = bootstrap(sums, resamplings, seed).nanquantile(bounds, dim=0)
    return low_K, high_K


class Difference(NamedTuple):
    """Run A minus run B in one metric, in percentage points."""

    value: float
    low: float
    """95 % interval, by bootstrap"""
    high: float
    p: float
    """probability of a difference at least as large, in either direction, if it did not matter which run is which"""


def compare_queries(
    one: QueryMetrics, other: QueryMetrics, pids: Tensor, resamplings: int = RESAMPLINGS, seed: int = 0
) -> dict[str, Difference]:
    """What two runs differ by on the same queries, per metric, and whether that can be chance.

    The p-value is that of a paired randomisation test (Fisher; Smucker et al., CIKM 2007): the two runs' results are
    exchanged for each identity with probability 1/2. The same numbers at every call.

    Args:
        one, other: what each query contributes, in the same order, with the same metrics.
        pids: (Q,) identities of the queries.
        resamplings: how many exchanges, and how many bootstrap samples.
        seed: of both.

    Raises:
        UserError: as in :func:`sum_by_identity`.
    """
    assert torch.equal(one.first_rank > 0, other.first_rank > 0), "the same queries, with the same identities"
    gap = QueryMetrics(one.first_rank, {name: value - other.values[name] for name, value in one.values.items()})
    sums = sum_by_identity(gap, pids)
    generator = torch.Generator().manual_seed(seed)
    identities, observed_K = len(sums.value_IK), sums.value_IK.sum(0)
    reached_K = torch.zeros_like(observed_K)
    # what is added up in another order must not fall short of what it equals
    least_K = observed_K.abs() * (1 - 1e-9) - 1e-12
    for size in _chunks(resamplings, identities):
        sign_BI = torch.randint(2, (size, identities), generator=generator).double().mul_(2).sub_(1)
        reached_K += ((sign_BI @ sums.value_IK).abs() >= least_K).sum(0)
    p_K = (reached_K + 1) / (resamplings + 1)
    value_K = 100 * observed_K / sums.count_IK.sum(0)
    low_K, high_K = intervals(sums, resamplings, seed)
    columns = (each.tolist() for each in (value_K, low_K, high_K, p_K))
    return {name: Difference(*row) for name, row in zip(gap.values, zip(*columns, strict=True), strict=True)}
