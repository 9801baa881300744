"""Intervals and the paired test at ICFG-PEDES' size, against the plain form: one resampling after the other.

The plain form draws identities, looks up their queries and takes the mean, as often as given; its time is scaled to
10,000 resamplings.
"""

import argparse
import time

import torch

from processor.metrics import METRICS
from processor.metrics.confidence import RESAMPLINGS, compare_queries, interval_rows
from processor.metrics.ranks import QueryMetrics

QUERIES, IDENTITIES = 19848, 1000


def draw(seed: int) -> QueryMetrics:
    """Random results of a run."""
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(QUERIES, generator=generator, dtype=torch.float64) for name in METRICS}
    return QueryMetrics(torch.ones(QUERIES, dtype=torch.int64), values)


def plain_bootstrap(queries: QueryMetrics, pids: torch.Tensor, resamplings: int) -> torch.Tensor:
    """(resamplings, metrics) of queries that are looked up anew every time."""
    rows = [(pids == pid).nonzero().flatten() for pid in range(IDENTITIES)]
    value_QK = torch.stack(list(queries.values.values()), dim=1)
    found = []
    for _ in range(resamplings):
        drawn = torch.randint(IDENTITIES, (IDENTITIES,)).tolist()
        found.append(100 * value_QK[torch.cat([rows[pid] for pid in drawn])].mean(0))
    return torch.stack(found)


def seconds(function, *args) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", type=int, default=200, metavar="N", help="resamplings of the plain form [200]")
    args = parser.parse_args()
    pids, one, other = torch.arange(QUERIES) % IDENTITIES, draw(0), draw(1)
    plain = seconds(plain_bootstrap, one, pids, args.plain) * RESAMPLINGS / args.plain
    ours, test = seconds(interval_rows, one, pids), seconds(compare_queries, one, other, pids)
    print(f"{QUERIES} queries, {IDENTITIES} identities, {len(METRICS)} metrics, {torch.get_num_threads()} threads")
    print(f"intervals {ours:.2f} s, paired test with intervals {test:.2f} s, plain intervals {plain:.1f} s")
    print(f"ratio confidence {plain / ours:.0f}")


if __name__ == "__main__":
    main()
