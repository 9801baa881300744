"""Average precision, whose mean over queries is mAP."""

import torch
from torch import Tensor


def average_precision(rank_RM: Tensor, count_R: Tensor) -> Tensor:
    """Mean over a query's matches of the precision at their ranks, over the full ranking."""
    place_M = torch.arange(1, rank_RM.shape[1] + 1, device=rank_RM.device)
    return (place_M / rank_RM).sum(dim=1) / count_R
