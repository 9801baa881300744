"""What similarities look like, and what single queries find; streamed like the metrics.

Shapes: Q queries, G gallery entries, D feature size, B queries of a block, N bins, K places of a ranking, P matching
pairs of a block.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from processor.metrics.blocks import for_each_block
from processor.metrics.nearest import rank_gallery
from processor.metrics.ranks import rank_matches


class Scores(NamedTuple):
    """Cosine similarities of every query with the gallery, summed up."""

    match_N: Tensor
    """int64, how many similarities of matching pairs fall in each of N equal bins over [-1, 1]"""
    other_N: Tensor
    """the same of all other pairs"""
    match_position_Q: Tensor
    """int64 gallery position of the query's nearest match, -1 for a query without any"""
    match_score_Q: Tensor
    """its similarity, -inf for a query without any"""
    other_score_Q: Tensor
    """similarity of the nearest entry that is no match, -inf where everything matches"""


@torch.no_grad()
def sum_up_scores(
    query_features: Tensor,
    gallery_features: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    bins: int = 200,
    block: int | None = None,
) -> Scores:
    """Histograms with up to 256 ``bins``, and the extremes of each query, without holding queries x gallery.

    Identities are (Q,) and (G,), on the device of the features; a match is an equal identity. The other arguments are
    those of :func:`for_each_block`.
    """
    assert bins <= 256, "bins are numbered in one byte, which is several times faster to count"
    parts: list[tuple[Tensor, Tensor]] = []
    position_Q = torch.full_like(query_pids, -1, dtype=torch.int64)
    match_Q = torch.full((len(query_pids),), -torch.inf, device=query_pids.device)
    other_Q = torch.empty_like(match_Q)

    def work(start: int, similarity_BG: Tensor) -> None:
        rows = slice(start, start + len(similarity_BG))
        row_P, column_P = (query_pids[rows, None] == gallery_pids).nonzero(as_tuple=True)
        score_P = similarity_BG[row_P, column_P]
        match_Q[rows].scatter_reduce_(0, row_P, score_P, "amax")
        nearest_P = score_P == match_Q[rows][row_P]
        position_Q[rows].scatter_reduce_(0, row_P[nearest_P], column_P[nearest_P], "amin", include_self=False)
        similarity_BG[row_P, column_P] = -torch.inf
        other_Q[rows] = similarity_BG.amax(dim=1)
        other_N = _histogram_in_place(similarity_BG, bins)
        other_N[0] -= len(score_P)  # that is where -inf was counted
        parts.append((_histogram_in_place(score_P, bins), other_N))

    for_each_block(query_features, gallery_features, work, block)
    match_N, other_N = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
    return Scores(match_N, other_N, position_Q, match_Q, other_Q)


def _histogram_in_place(similarity: Tensor, bins: int) -> Tensor:
    """(N,) counts; the similarities are lost, so that no second block of them is needed."""
    place = similarity.add_(1).mul_(bins / 2).clamp_(0, bins - 1).to(torch.uint8)
    return torch.bincount(place.flatten(), minlength=bins)


class Hit(NamedTuple):
    """A gallery entry in the ranking of a query."""

    position: int
    """in the gallery"""
    rank: int
    """1 for the nearest"""
    score: float
    """cosine similarity"""
    right: bool
    """whether it matches"""


class Retrieved(NamedTuple):
    """What one query found."""

    query: int
    hits: tuple[Hit, ...]
    """the first entries, nearest first"""
    match: Hit | None
    """the nearest entry that matches, wherever it is ranked"""


@torch.no_grad()
def retrieve(
    query_features: Tensor,
    gallery_features: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    queries: Sequence[int],
    k: int,
) -> list[Retrieved]:
    """The first ``k`` gallery entries and the nearest match of chosen queries; arguments as :func:`sum_up_scores`."""
    rows_R = torch.tensor(list(queries), dtype=torch.int64, device=query_features.device)
    chosen = (query_features[rows_R], gallery_features, query_pids[rows_R], gallery_pids)
    score_RK, position_RK = rank_gallery(*chosen[:2], k)
    scores, rank_R = sum_up_scores(*chosen), rank_matches(*chosen).first_rank
    right_RK = gallery_pids[position_RK] == chosen[2][:, None]
    columns = (position_RK, score_RK, right_RK, scores.match_position_Q, scores.match_score_Q, rank_R)
    found = []
    for query, *values in zip(queries, *(column.tolist() for column in columns), strict=True):
        positions, similarities, right, match_position, match_score, rank = values
        hits = tuple(
            Hit(position, place, score, is_right)
            for place, (position, score, is_right) in enumerate(zip(positions, similarities, right, strict=True), 1)
        )
        # a hit knows its rank from the list that is shown: for nearly equal scores another block may round otherwise
        match = next((hit for hit in hits if hit.right), Hit(match_position, rank, match_score, True))
        found.append(Retrieved(query, hits, match if rank else None))
    return found
