"""Retrieval metrics, exact, streamed over blocks of similarities; nothing here ever sorts queries x gallery.

The rank of a match is one plus the number of gallery entries ahead of it, so counting comparisons is enough, and is
several times faster than a sort. Ties are ranked in gallery order: an entry as good is ahead if it comes earlier.

Shapes: Q queries, G gallery entries, D feature size, M matches of a query (padded), K ranks asked for; B queries make a
block, R of them a tile; the gallery is split in C chunks of W entries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from processor.metrics.blocks import (
    CHUNK,
    Similarity,
    _check_features,
    _cosine,
    _for_each_block,
    _full_float32,
    for_each_block,
)

TILE_ELEMENTS = (1 << 25, 3 << 18)
"""similarities compared by one call: on a GPU enough to amortise the launch, on a CPU what its cache holds"""

SORT_FROM = 512
"""with more matches per query than this, sorting a tile beats counting for each match"""


class QueryRanks(NamedTuple):
    """What each query contributes to the metrics; the parts of several query shards can simply be concatenated."""

    first_rank: Tensor
    """(Q,) int64, rank of the first match from 1 on; 0 for a query without any match"""
    ap: Tensor
    """(Q,) float64, average precision over the full ranking, 0..1"""
    inp: Tensor
    """(Q,) float64, number of matches / rank of the last match, 0..1"""


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
    ks: Sequence[int] = (1, 5, 10),
    allow_unmatched: bool = False,
    block: int | None = None,
    first_QK: Tensor | None = None,
) -> dict[str, float]:
    """R@k, mAP and mINP of a retrieval by cosine similarity.

    Args:
        query_features: (Q, D), any float type; L2-normalised here, in float32.
        gallery_features: (G, D), on the same device.
        query_pids: (Q,) identities; a match is an equal identity.
        gallery_pids: (G,) identities.
        ks: the ranks of R@k; a k beyond the gallery counts the whole gallery.
        allow_unmatched: leave out queries whose identity the gallery lacks, and add their number as ``unmatched``.
        block: queries that a thread handles at once; by default as many as fit 64 MiB of similarities (GPU: 512 MiB).
        first_QK: (Q, K) gallery positions that come first, in this order, whatever their similarity; for reranking.

    Returns:
        ``{"R1": ..., "R5": ..., "R10": ..., "mAP": ..., "mINP": ...}`` in percent.

    Raises:
        ValueError: shapes that do not fit, empty input, features that are not finite, or a query without any match
            (unless that is allowed).
    """
    _check_features(query_features, gallery_features)
    require_matches(query_pids, gallery_pids, allow_unmatched)
    return summarise(rank_matches(query_features, gallery_features, query_pids, gallery_pids, block, first_QK), ks)


def similarity_metrics(
    similarity_QG: Tensor,
    query_pids: Tensor | Sequence[int],
    gallery_pids: Tensor | Sequence[int],
    ks: Sequence[int] = (1, 5, 10),
    allow_unmatched: bool = False,
    block: int | None = None,
) -> dict[str, float]:
    """`retrieval_metrics` of similarities that are at hand already: (Q, G), finite, larger is nearer, float32."""
    require_matches(query_pids, gallery_pids, allow_unmatched)
    return summarise(rank_similarity(similarity_QG, query_pids, gallery_pids, block), ks)


def require_matches(
    query_pids: Tensor | Sequence[int], gallery_pids: Tensor | Sequence[int], allow_unmatched: bool = False
) -> None:
    """Raise a ValueError that names the first query without any match, unless such queries are allowed."""
    query_pids = torch.as_tensor(query_pids)
    gallery_pids = torch.as_tensor(gallery_pids, device=query_pids.device)
    unmatched = (~torch.isin(query_pids, gallery_pids)).nonzero().flatten()
    if len(unmatched) and not allow_unmatched:
        first = int(unmatched[0])
        raise ValueError(
            f"{len(unmatched)} of {len(query_pids)} queries have no match in the gallery; the first is query {first} "
            f"(pid {int(query_pids[first])}). --allow_unmatched leaves them out of the metrics and reports their number"
        )


def summarise(ranks: QueryRanks, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Means over the queries that have a match, in percent; ``unmatched`` counts the others, where there are any.

    Raises:
        ValueError: no query has a match.
    """
    matched_Q = ranks.first_rank > 0
    count = matched_Q.sum()
    hits = [((ranks.first_rank <= k) & matched_Q).sum() for k in ks]
    sums = torch.stack([total.double() for total in (*hits, ranks.ap.sum(), ranks.inp.sum(), count)]).tolist()
    matched = int(sums.pop())
    if not matched:
        raise ValueError(f"none of the {len(matched_Q)} queries has a match in the gallery")
    names = [*(f"R{k}" for k in ks), "mAP", "mINP"]
    result = {name: 100 * total / matched for name, total in zip(names, sums, strict=True)}
    if matched < len(matched_Q):
        result["unmatched"] = float(len(matched_Q) - matched)
    return result


@_full_float32()
@torch.no_grad()
def rank_matches(
    query_features: Tensor,
    gallery_features: Tensor,
    query_pids: Tensor | Sequence[int],
    gallery_pids: Tensor | Sequence[int],
    block: int | None = None,
    first_QK: Tensor | None = None,
) -> QueryRanks:
    """Where each query's matches are ranked by cosine similarity; arguments and errors as `retrieval_metrics`.

    A query without any match gets zeros. Query shards of several processes give the parts of the whole.
    """
    matches = _find_matches(query_pids, gallery_pids, query_features, gallery_features)
    similarity = _cosine(query_features, gallery_features)
    if first_QK is not None:
        similarity = _led_by(first_QK, similarity)
    return _rank_blocks(similarity, matches, len(query_features), len(gallery_features), block)


@torch.no_grad()
def rank_similarity(
    similarity_QG: Tensor,
    query_pids: Tensor | Sequence[int],
    gallery_pids: Tensor | Sequence[int],
    block: int | None = None,
) -> QueryRanks:
    """`rank_matches` of similarities that are at hand already, (Q, G), larger is nearer.

    Raises:
        ValueError: shapes that do not fit, empty input, similarities that are not finite.
    """
    if similarity_QG.ndim != 2:
        raise ValueError(f"similarity has shape {tuple(similarity_QG.shape)}: expected (queries, gallery)")
    if not similarity_QG.isfinite().all():
        raise ValueError("similarity contains NaN or infinite values")
    matches = _find_matches(query_pids, gallery_pids, similarity_QG, similarity_QG.T)
    size = similarity_QG.shape[1]

    def similarity(rows_B: Tensor, out_BG: Tensor) -> None:
        out_BG[:, :size] = similarity_QG[rows_B]

    return _rank_blocks(similarity, matches, *similarity_QG.shape, block)


@torch.no_grad()
def rank_gallery(
    query_features: Tensor, gallery_features: Tensor, k: int, block: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k gallery entries nearest to each query by cosine similarity, nearest first, ties in gallery order.

    Args:
        query_features: (Q, D), any float type; L2-normalised here, in float32.
        gallery_features: (G, D), on the same device.
        k: how many; cut to G.
        block: queries that a thread handles at once; by default as many as fit 64 MiB of similarities (GPU: 512 MiB).

    Returns:
        (Q, K) float32 cosine similarities and (Q, K) int64 gallery positions.

    Raises:
        ValueError: shapes that do not fit, empty input, features that are not finite, k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one gallery entry")
    _check_features(query_features, gallery_features)
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


def _find_matches(
    query_pids: Tensor | Sequence[int], gallery_pids: Tensor | Sequence[int], queries: Tensor, gallery: Tensor
) -> Matches:
    """Look up each query's identity; of ``queries`` and ``gallery`` only the length and the device count."""
    query_pids = torch.as_tensor(query_pids, device=queries.device)
    gallery_pids = torch.as_tensor(gallery_pids, device=queries.device)
    for name, pids, items in (("query", query_pids, queries), ("gallery", gallery_pids, gallery)):
        if pids.shape != (len(items),):
            raise ValueError(f"{name} pids have shape {tuple(pids.shape)}: expected one for each of {len(items)} rows")
        if not len(pids):
            raise ValueError(f"there is no {name} to rank")
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


def _rank_blocks(similarity: Similarity, matches: Matches, queries: int, size: int, block: int | None) -> QueryRanks:
    device = matches.count.device
    ranks = QueryRanks(
        torch.zeros(queries, dtype=torch.int64, device=device),
        torch.zeros(queries, dtype=torch.float64, device=device),
        torch.zeros(queries, dtype=torch.float64, device=device),
    )
    # Queries in the order of their number of matches: tiles then need little padding.
    count_Q, rows_Q = matches.count.sort(stable=True)
    counts = count_Q.tolist()
    room = TILE_ELEMENTS[device.type == "cpu"]

    def work(start: int, similarity_BG: Tensor) -> None:
        end = start + len(similarity_BG)
        tile = max(1, room // max(similarity_BG.shape[1], min(counts[end - 1], SORT_FROM) * CHUNK))
        for similarity_RG in similarity_BG.split(tile):
            rows_R = rows_Q[start : start + len(similarity_RG)]
            start += len(similarity_RG)
            if counts[start - 1]:
                _rank_tile(similarity_RG, rows_R, matches, counts[start - 1], ranks)

    _for_each_block(similarity, rows_Q, size, block, work)
    return ranks


def _rank_tile(similarity_RG: Tensor, rows_R: Tensor, matches: Matches, most: int, ranks: QueryRanks) -> None:
    """Write the results of the queries ``rows_R``, none of which has more than ``most`` matches."""
    count_R1 = matches.count[rows_R, None]
    place_M = torch.arange(most, device=rows_R.device)
    column_RM = matches.order[(matches.start[rows_R, None] + place_M).clamp_max_(len(matches.order) - 1)]
    rank = _count_ahead if most < SORT_FROM else _sort_ahead
    rank_RM = rank(similarity_RG, column_RM) + 1
    padding_RM = place_M >= count_R1
    sorted_RM = rank_RM.masked_fill_(padding_RM, torch.iinfo(torch.int64).max).sort(dim=1).values.double()
    precision_RM = ((place_M + 1) / sorted_RM).masked_fill_(padding_RM, 0)
    has_match_R1 = count_R1 > 0
    last_R1 = (count_R1 - 1).clamp_min(0)
    ranks.first_rank[rows_R] = torch.where(has_match_R1, rank_RM.amin(1, keepdim=True), 0)[:, 0]
    ranks.ap[rows_R] = precision_RM.sum(1) / count_R1[:, 0].clamp_min(1)
    ranks.inp[rows_R] = precision_RM.gather(1, last_R1)[:, 0]


def _count_ahead(similarity_RG: Tensor, column_RM: Tensor) -> Tensor:
    """How many gallery entries are ahead of the entries ``column_RM``: better, or as good and earlier.

    An entry as good counts in the chunks before the match's own and not in those after it: one threshold per chunk says
    both, as x >= s is x > the float below s. In the match's own chunk the equal entries before it are counted apart.
    """
    similarity_RCW = similarity_RG.unflatten(1, (-1, CHUNK))
    score_RM = similarity_RG.gather(1, column_RM)
    below_RM = score_RM.nextafter(score_RM.new_tensor(-torch.inf))
    chunk_RM = column_RM // CHUNK
    chunk_C = torch.arange(similarity_RCW.shape[1], device=chunk_RM.device)
    mask_RCW = torch.empty_like(similarity_RCW)  # float, because torch vectorises that comparison, not one into bool
    threshold_MRC = torch.where(chunk_C < chunk_RM.T[..., None], below_RM.T[..., None], score_RM.T[..., None])
    ahead_MRC = torch.empty_like(threshold_MRC)
    for threshold_RC, ahead_RC in zip(threshold_MRC, ahead_MRC, strict=True):
        torch.gt(similarity_RCW, threshold_RC[..., None], out=mask_RCW)
        torch.sum(mask_RCW, 2, out=ahead_RC)
    row_R1 = torch.arange(len(column_RM), device=chunk_RM.device)[:, None]
    own_RMW = similarity_RCW[row_R1, chunk_RM] == score_RM[..., None]
    own_RMW &= torch.arange(CHUNK, device=chunk_RM.device) < (column_RM % CHUNK)[..., None]
    return ahead_MRC.sum(2, dtype=torch.int64).T + own_RMW.sum(2)


def _sort_ahead(similarity_RG: Tensor, column_RM: Tensor) -> Tensor:
    """`_count_ahead` for very many matches per query."""
    order_RG = similarity_RG.argsort(dim=1, descending=True, stable=True)
    place_RG = torch.empty_like(order_RG)
    place_RG.scatter_(1, order_RG, torch.arange(order_RG.shape[1], device=order_RG.device).expand_as(order_RG))
    return place_RG.gather(1, column_RM)
