"""R@k, the cumulative match characteristic (CMC) at rank k, and rSum, a sum of several of them."""

from collections.abc import Sequence

from torch import Tensor

from processor.metrics.metric import RankMetric


def recall_at(k: int) -> RankMetric:
    """The metric R@k: 1 for a query with a match among the first k, else 0."""

    def recall(rank_RM: Tensor, count_R: Tensor) -> Tensor:
        return (rank_RM[:, 0] <= k).double()

    return recall


def recall_sum(ks: Sequence[int]) -> RankMetric:
    """The metric rSum: R@k added up over ``ks``, so at most their number times 100 %."""

    def recall(rank_RM: Tensor, count_R: Tensor) -> Tensor:
        return sum(recall_at(k)(rank_RM, count_R) for k in ks)

    return recall
