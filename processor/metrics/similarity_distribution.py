"""Similarity distribution (Zuo et al., UFineBench, CVPR 2024), whose mean over queries is mSD.

Similarities are s' = (cosine + 1) / 2. Per query, with r over the ranks of the matches,
SD = (1 - exp(-mean s' of matches / mean s' of the others)) * mean_r(s' of the matches up to r / s' of all up to r).

The published calculator multiplies a mask of matches in ranked order with similarities in gallery order. Its values,
for comparison with published ones only, depend on the order of the gallery; they are under a name of their own.
"""

import torch
from torch import Tensor

from processor.metrics.metric import MatchScores


def similarity_distribution(matches: MatchScores) -> Tensor:
    """SD as the paper defines it, from sorted similarities."""
    return _distribution(matches, matches.score_RM, matches.sum_RM)


def published_similarity_distribution(matches: MatchScores) -> Tensor:
    """SD as the published calculator computes it: s' of rank r is that of the r-th entry of the gallery."""
    place_RM = matches.rank_RM.clamp_max(matches.similarity_RG.shape[1]).long() - 1
    score_RM = matches.similarity_RG.gather(1, place_RM).double()
    # PyTorch adds up in float64 either way; float64 results take nine times as long
    sum_RM = matches.similarity_RG.cumsum(1).gather(1, place_RM).double()
    return _distribution(matches, score_RM, sum_RM)


def _distribution(matches: MatchScores, score_RM: Tensor, sum_RM: Tensor) -> Tensor:
    """``score_RM`` counts as s' of the matches, ``sum_RM`` as that of everything up to them."""
    is_match_RM = matches.rank_RM.isfinite()
    score_RM = score_RM.masked_fill(~is_match_RM, 0)
    match_R = score_RM.sum(1)
    others_R = (matches.similarity_RG.shape[1] - matches.count_R).clamp_min(1)
    other_R = (matches.similarity_RG.sum(1).double() - match_R).clamp_min(0) / others_R
    tiny = torch.finfo(torch.float64).tiny  # where nothing else is in the gallery, or it is as far away as can be
    separation_R = -torch.expm1(-match_R / matches.count_R / other_R.clamp_min(tiny))
    share_RM = score_RM.cumsum(1) / sum_RM.clamp_min(tiny)
    return separation_R * share_RM.masked_fill(~is_match_RM, 0).sum(1) / matches.count_R
