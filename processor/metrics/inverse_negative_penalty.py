"""Inverse negative penalty (Ye et al., TPAMI 2021, eq. 9), whose mean over queries is mINP."""

from torch import Tensor


def inverse_negative_penalty(rank_RM: Tensor, count_R: Tensor) -> Tensor:
    """Number of matches over the rank of the last one: how far one must look to see them all."""
    last_R1 = count_R.long()[:, None] - 1
    return count_R / rank_RM.gather(1, last_R1)[:, 0]
