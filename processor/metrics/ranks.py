"""Retrieval metrics, exact, streamed over blocks of similarities; nothing here ever sorts queries x gallery.

The rank of a match is one plus the number of gallery entries ahead of it, so counting comparisons is enough, and is
several times faster than a sort. Ties are ranked in gallery order: an entry as good is ahead if it comes earlier.

Shapes: Q queries, G gallery entries, D feature size, M matches of a query (padded), K ranks asked for; B queries make a
block, R of them a tile; the gallery is split in C chunks of W entries.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from processor.metrics import METRICS
from processor.metrics.blocks import CHUNK, Similarity, check_features, cosine, full_float32, walk_blocks
from processor.metrics.metric import MatchScores, Metric, ScoreMetric
from utils import UserError

TILE_ELEMENTS = (1 << 25, 3 << 18)
"""similarities compared by one call: on a GPU enough to amortise the launch, on a CPU what its cache holds"""

SORT_FROM = 512
"""with more matches per query than this, sorting a tile beats counting for each match"""


class QueryMetrics(NamedTuple):
    """What each query contributes to the metrics; the parts of several query shards can simply be concatenated."""

    first_rank: Tensor
    """(Q,) int64, rank of the first match from 1 on; 0 for a query without any match"""
    values: dict[str, Tensor]
    """(Q,) float64 by metric, 0 for a query without any match"""

    def cpu(self) -> "QueryMetrics":
        """The same in the host's memory."""
        return QueryMetrics(self.first_rank.cpu(), {name: value.cpu() for name, value in self.values.items()})


class Matches(NamedTuple):
    """Which gallery entries match: query q's are ``order[start[q] : start[q] + count[q]]``, in gallery order."""

    order: Tensor
    """(G,) gallery positions, grouped by identity"""
    start: Tensor
    """(Q,) where the query's identity begins in ``order``"""
    count: Tensor
    """(Q,) how many matches the query has"""


def retrieval_metrics(
    query_features: Tensor,
    gallery_features: Tensor,
    query_pids: Tensor | Sequence[int],
    gallery_pids: Tensor | Sequence[int],
    metrics: Mapping[str, Metric] = METRICS,
    allow_unmatched: bool = False,
    block: int | None = None,
    first_QK: Tensor | None = None,
) -> dict[str, float]:
    """Metrics of a retrieval by cosine similarity.

    Args:
        query_features: (Q, D), any float type; L2-normalised here, in float32.
        gallery_features: (G, D), on the same device.
        query_pids: (Q,) identities; a match is an equal identity.
        gallery_pids: (G,) identities.
        metrics: what to compute, by name.
        allow_unmatched: leave out queries whose identity the gallery lacks, and add their number as ``unmatched``.
        block: queries that a thread handles at once; by default as many as fit 64 MiB of similarities (GPU: 512 MiB).
        first_QK: (Q, K) gallery positions that come first, in this order, whatever their similarity; for reranking.

    Returns:
        every metric in percent.

    Raises:
        UserError: features that are not finite, or a query without any match (unless that is allowed).
        ValueError: shapes that do not fit, or empty input.
    """
    check_features(query_features, gallery_features)
    require_matches(query_pids, gallery_pids, allow_unmatched)
    pids = query_pids, gallery_pids
    return summarise(rank_matches(query_features, gallery_features, *pids, metrics, block, first_QK))


def require_matches(
    query_pids: Tensor | Sequence[int], gallery_pids: Tensor | Sequence[int], allow_unmatched: bool = False
) -> None:
    """Raise a UserError that names the first query without any match, unless such queries are allowed."""
    query_pids = torch.as_tensor(query_pids)
    gallery_pids = torch.as_tensor(gallery_pids, device=query_pids.device)
    unmatched = (~torch.isin(query_pids, gallery_pids)).nonzero().flatten()
    if len(unmatched) and not allow_unmatched:
        first = int(unmatched[0])
        raise UserError(
            f"{len(unmatched)} of {len(query_pids)} queries have no match in the gallery; the first is query {first} "
            f"(pid {int(query_pids[first])}). --allow_unmatched leaves them out of the metrics and reports their number"
        )


def summarise(queries: QueryMetrics) -> dict[str, float]:
    """Means over the queries that have a match, in percent; ``unmatched`` counts the others, where there are any.

    Raises:
        UserError: no query has a match.
    """
    total = len(queries.first_rank)
    sums = torch.stack([*(value_Q.sum() for value_Q in queries.values.values()), (queries.first_rank > 0).sum()])
    *sums, matched = sums.double().tolist()
    if not matched:
        raise UserError(f"none of the {total} queries has a match in the gallery")
    result = {name: 100 * value / matched for name, value in zip(queries.values, sums, strict=True)}
    return result if matched == total else {**result, "unmatched": total - matched}


@full_float32()
@torch.no_grad()
def rank_matches(
    query_features: Tensor,
    gallery_features: Tensor,
    query_pids: Tensor | Sequence[int],
    gallery_pids: Tensor | Sequence[int],
    metrics: Mapping[str, Metric] = METRICS,
    block: int | None = None,
    first_QK: Tensor | None = None,
) -> QueryMetrics:
    """Where each query's matches are ranked by cosine similarity; arguments and errors as `retrieval_metrics`.

    A query without any match gets zeros. Query shards of several processes give the parts of the whole.
    """
    similarity = cosine(query_features, gallery_features)
    if first_QK is not None:
        similarity = _led_by(first_QK, similarity)
    matches = _find_matches(query_pids, gallery_pids, query_features, gallery_features)
    queries, device = len(query_features), query_features.device
    values = {name: torch.zeros(queries, dtype=torch.float64, device=device) for name in metrics}
    result = QueryMetrics(torch.zeros(queries, dtype=torch.int64, device=device), values)
    # Queries in the order of their number of matches: tiles then need little padding.
    count_Q, rows_Q = matches.count.sort(stable=True)
    counts = count_Q.tolist()
    with_scores = any(isinstance(metric, ScoreMetric) for metric in metrics.values())
    room = TILE_ELEMENTS[device.type == "cpu"]

    def work(start: int, similarity_BG: Tensor) -> None:
        end = start + len(similarity_BG)
        tile = max(1, room // max(similarity_BG.shape[1], min(counts[end - 1], SORT_FROM) * CHUNK))
        for similarity_RG in similarity_BG.split(tile):
            rows_R = rows_Q[start : start + len(similarity_RG)]
            start += len(similarity_RG)
            if most := counts[start - 1]:
                tile_ranks = _tile_ranks(similarity_RG, rows_R, matches, most, with_scores)
                rank_RM, count_R, is_matched_R = tile_ranks.rank_RM, tile_ranks.count_R, matches.count[rows_R] > 0
                result.first_rank[rows_R] = torch.where(is_matched_R, rank_RM[:, 0], 0).long()
                for name, metric in metrics.items():
                    value_R = metric.of(tile_ranks) if isinstance(metric, ScoreMetric) else metric(rank_RM, count_R)
                    values[name][rows_R] = torch.where(is_matched_R, value_R, 0)

    walk_blocks(similarity, rows_Q, len(gallery_features), block, work)
    return result


def _find_matches(
    query_pids: Tensor | Sequence[int], gallery_pids: Tensor | Sequence[int], queries: Tensor, gallery: Tensor
) -> Matches:
    """Look up each query's identity; of ``queries`` and ``gallery`` only the length and the device count."""
    query_pids = torch.as_tensor(query_pids, device=queries.device)
    gallery_pids = torch.as_tensor(gallery_pids, device=queries.device)
    for name, pids, items in (("query", query_pids, queries), ("gallery", gallery_pids, gallery)):
        if pids.shape != (len(items),):
            raise ValueError(f"{name} pids have shape {tuple(pids.shape)}: expected one for each of {len(items)} rows")
    pids_G, order_G = gallery_pids.sort(stable=True)
    start_Q = torch.searchsorted(pids_G, query_pids)
    return Matches(order_G, start_Q, torch.searchsorted(pids_G, query_pids, right=True) - start_Q)


def _led_by(first_QK: Tensor, similarity: Similarity) -> Similarity:
    """Similarities in which the entries ``first_QK`` are ahead of all others, in their order."""
    # Whole numbers above every cosine: float32 holds them exactly, up to a gallery of 16 million.
    score_K = torch.arange(first_QK.shape[1] + 1, 1, -1, device=first_QK.device, dtype=torch.float32)

    def led(rows_B: Tensor, out_BG: Tensor) -> None:
        similarity(rows_B, out_BG)
        first_BK = first_QK[rows_B]
        out_BG.scatter_(1, first_BK, score_K.expand_as(first_BK))

    return led


def _tile_ranks(similarity_RG: Tensor, rows_R: Tensor, matches: Matches, most: int, with_scores: bool) -> MatchScores:
    """Ranks of the matches of the queries ``rows_R``; without scores, only the first two fields are filled.

    No query has more than M = ``most``; ``matches`` are those of all queries.
    """
    place_M = torch.arange(most, device=rows_R.device)
    column_RM = matches.order[(matches.start[rows_R, None] + place_M).clamp_max_(len(matches.order) - 1)]
    is_beyond_RM = place_M >= matches.count[rows_R, None]
    # beyond the gallery similarities are -inf, which count as 0
    scaled_RG = similarity_RG.div(2).add_(0.5).clamp_min_(0) if with_scores else None
    rank = _count_ahead if most < SORT_FROM else _sort_ahead
    ahead_RM, sum_RM = rank(similarity_RG, column_RM, scaled_RG)
    rank_RM, order_RM = (ahead_RM.double() + 1).masked_fill_(is_beyond_RM, torch.inf).sort(dim=1)
    count_R = matches.count[rows_R].clamp_min(1).double()
    if not with_scores:
        return MatchScores(rank_RM, count_R, *[torch.empty(0)] * 3)
    score_RM = scaled_RG.gather(1, column_RM).double().masked_fill_(is_beyond_RM, 0)
    sum_RM = (sum_RM + score_RM).masked_fill_(is_beyond_RM, 0)
    in_order = (score_RM.gather(1, order_RM), sum_RM.gather(1, order_RM))
    return MatchScores(rank_RM, count_R, *in_order, scaled_RG[:, : len(matches.order)])


def _count_ahead(similarity_RG: Tensor, column_RM: Tensor, scaled_RG: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """How many gallery entries are ahead of the entries ``column_RM``: better, or as good and earlier.

    An entry as good counts in the chunks before the match's own and not in those after it: one threshold per chunk says
    both, as x >= s is x > the float below s. In the match's own chunk the equal entries before it are counted apart.

    Returns:
        (R, M) int64, and the sums of what these entries have in ``scaled_RG``, (R, M) float64, if it is given.
    """
    similarity_RCW = similarity_RG.unflatten(1, (-1, CHUNK))
    score_RM = similarity_RG.gather(1, column_RM)
    below_RM = score_RM.nextafter(score_RM.new_tensor(-torch.inf))
    chunk_RM = column_RM // CHUNK
    chunk_C = torch.arange(similarity_RCW.shape[1], device=chunk_RM.device)
    mask_RCW = torch.empty_like(similarity_RCW)  # float, because torch vectorises that comparison, not one into bool
    threshold_MRC = torch.where(chunk_C < chunk_RM.T[..., None], below_RM.T[..., None], score_RM.T[..., None])
    ahead_MRC = torch.empty_like(threshold_MRC)
    sum_MRC = torch.empty_like(threshold_MRC) if scaled_RG is not None else ahead_MRC
    for threshold_RC, ahead_RC, sum_RC in zip(threshold_MRC, ahead_MRC, sum_MRC, strict=True):
        torch.gt(similarity_RCW, threshold_RC[..., None], out=mask_RCW)
        torch.sum(mask_RCW, 2, out=ahead_RC)
        if scaled_RG is not None:
            torch.sum(mask_RCW.mul_(scaled_RG.view_as(mask_RCW)), 2, out=sum_RC)
    row_R1 = torch.arange(len(column_RM), device=chunk_RM.device)[:, None]
    own_RMW = similarity_RCW[row_R1, chunk_RM] == score_RM[..., None]
    own_RMW &= torch.arange(CHUNK, device=chunk_RM.device) < (column_RM % CHUNK)[..., None]
    own_RM = own_RMW.sum(2)
    ahead_RM = ahead_MRC.sum(2, dtype=torch.int64).T + own_RM
    if scaled_RG is None:
        return ahead_RM, None
    return ahead_RM, sum_MRC.sum(2, dtype=torch.float64).T + own_RM * scaled_RG.gather(1, column_RM)


def _sort_ahead(similarity_RG: Tensor, column_RM: Tensor, scaled_RG: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """`_count_ahead` for very many matches per query."""
    order_RG = similarity_RG.argsort(dim=1, descending=True, stable=True)
    place_RG = torch.empty_like(order_RG)
    place_RG.scatter_(1, order_RG, torch.arange(order_RG.shape[1], device=order_RG.device).expand_as(order_RG))
    ahead_RM = place_RG.gather(1, column_RM)
    if scaled_RG is None:
        return ahead_RM, None
    sum_RG = scaled_RG.gather(1, order_RG).cumsum(1, dtype=torch.float64)
    return ahead_RM, sum_RG.gather(1, ahead_RM) - scaled_RG.gather(1, column_RM)
