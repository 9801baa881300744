"""Retrieval metrics, exact and streamed. A new metric is a file here and a line in METRICS, or in EXTRA_METRICS."""

from collections.abc import Sequence

from processor.metrics.average_precision import average_precision
from processor.metrics.inverse_negative_penalty import inverse_negative_penalty
from processor.metrics.metric import Metric, ScoreMetric
from processor.metrics.recall import recall_at, recall_sum
from processor.metrics.similarity_distribution import published_similarity_distribution, similarity_distribution

KS = (1, 5, 10)
"""the k of the field's R@k"""

METRICS: dict[str, Metric] = {
    **{f"R{k}": recall_at(k) for k in KS},
    "mAP": average_precision,
    "mINP": inverse_negative_penalty,
}
"""columns of every table, in this order"""

EXTRA_METRICS: dict[str, Metric] = {
    "rSum": recall_sum(KS),
    "mSD": ScoreMetric(similarity_distribution),
    "mSD_published": ScoreMetric(published_similarity_distribution),
}
"""further columns of a test's tables, on request"""


def chosen_metrics(ks: Sequence[int], extra: Sequence[str]) -> dict[str, Metric]:
    """The columns of a table: R@k for each of ``ks``, the others of METRICS, and some ``extra`` ones by name."""
    recalls = {f"R{k}": recall_at(k) for k in ks}
    if tuple(ks) == KS:
        recalls = METRICS
    others = {name: metric for name, metric in METRICS.items() if name not in {f"R{k}" for k in KS}}
    return {**recalls, **others, **{name: EXTRA_METRICS[name] for name in extra}}
