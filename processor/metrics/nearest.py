"""The gallery entries nearest to each query.

Shapes: Q queries, G gallery entries, D feature size, K entries asked for; B queries make a block.
"""

import torch
from torch import Tensor

from processor.metrics.blocks import check_features, for_each_block


@torch.no_grad()
def rank_gallery(
    query_features: Tensor, gallery_features: Tensor, k: int, block: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k gallery entries nearest to each query by cosine similarity, nearest first, ties in gallery order.

    ``k`` is cut to G; the other arguments are those of :func:`for_each_block`.

    Returns:
        (Q, K) float32 cosine similarities and (Q, K) int64 gallery positions.

    Raises:
        ValueError: shapes that do not fit, empty input, features that are not finite, k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one gallery entry")
    check_features(query_features, gallery_features)
    k = min(k, len(gallery_features))
    score_QK = torch.empty((len(query_features), k), device=query_features.device)
    position_QK = torch.empty_like(score_QK, dtype=torch.int64)

    def work(start: int, similarity_BG: Tensor) -> None:
        rows = slice(start, start + len(similarity_BG))
        score_QK[rows], position_QK[rows] = _stable_topk(similarity_BG, k)

    for_each_block(query_features, gallery_features, work, block)
    return score_QK, position_QK


def _stable_topk(similarity_BG: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`torch.topk` says nothing about ties: put them in gallery order, also those cut by the k-th place."""
    score_BK, position_BK = similarity_BG.topk(k, dim=1)
    cut_B = (similarity_BG >= score_BK[:, -1:]).sum(1) > k
    if cut_B.any():
        ranked = similarity_BG[cut_B].sort(dim=1, descending=True, stable=True)
        score_BK[cut_B], position_BK[cut_B] = ranked.values[:, :k], ranked.indices[:, :k]
    position_BK, by_position = position_BK.sort(dim=1)
    score_BK, by_score = score_BK.gather(1, by_position).sort(dim=1, descending=True, stable=True)
    return score_BK, position_BK.gather(1, by_score)
