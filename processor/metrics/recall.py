"""R@k, the cumulative match characteristic (CMC) at rank k."""

from collections.abc import Callable

from torch import Tensor


def recall_at(k: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The metric R@k: 1 for a query with a match among the first k, else 0."""

    def recall(rank_RM: Tensor, count_R: Tensor) -> Tensor:
        return (rank_RM[:, 0] <= k).double()

    return recall
