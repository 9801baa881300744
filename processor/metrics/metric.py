"""What a metric is: one value per query, from the ranks of its matches or from their similarities.

Shape letters: R queries, M matches of a query (padded), G gallery entries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

RankMetric = Callable[[Tensor, Tensor], Tensor]
"""from the ranks of each query's matches to one value per query, of which the table shows the mean in percent

Args: (R, M) float64 ranks of R queries, ascending from 1 on, infinite where a query has fewer than M matches;
(R,) float64 numbers of matches, at least 1. Returns (R,) float64."""


class MatchScores(NamedTuple):
    """Matches in the order of their ranks, with their similarities, the cosine mapped to [0, 1]."""

    rank_RM: Tensor
    """float64, ascending from 1 on, infinite where a query has fewer than M matches"""
    count_R: Tensor
    """float64 numbers of matches, at least 1"""
    score_RM: Tensor
    """float64 similarities of the matches, descending; 0 beyond a query's last"""
    sum_RM: Tensor
    """float64, the similarities of all gallery entries up to and including each match, added up; 0 beyond the last"""
    similarity_RG: Tensor
    """float32 similarities of all gallery entries, in gallery order; not to be changed"""


@dataclass(frozen=True)
class ScoreMetric:
    """A metric that needs similarities as well as ranks."""

    of: Callable[[MatchScores], Tensor]
    """returns one value per query, (R,) float64, of which the table shows the mean in percent"""


Metric = RankMetric | ScoreMetric
