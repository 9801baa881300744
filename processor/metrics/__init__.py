"""Retrieval metrics, exact and streamed. A new metric is a file here and a line in METRICS."""

from collections.abc import Callable

from torch import Tensor

from processor.metrics.average_precision import average_precision
from processor.metrics.inverse_negative_penalty import inverse_negative_penalty
from processor.metrics.recall import recall_at

Metric = Callable[[Tensor, Tensor], Tensor]
"""from the ranks of each query's matches to one value per query, of which the table shows the mean in percent

Args: (R, M) float64 ranks of R queries, ascending from 1 on, infinite where a query has fewer than M matches;
(R,) float64 numbers of matches, at least 1. Returns (R,) float64."""

METRICS: dict[str, Metric] = {
    "R1": recall_at(1),
    "R5": recall_at(5),
    "R10": recall_at(10),
    "mAP": average_precision,
    "mINP": inverse_negative_penalty,
}
"""columns of every table, in this order"""
