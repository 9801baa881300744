"""Histograms, extremes and single retrievals against plain loops over the whole similarity matrix."""

import pytest
import torch
import torch.nn.functional as F

from processor.metrics.ranks import rank_matches
from processor.metrics.scores import retrieve, sum_up_scores


@pytest.fixture
def split() -> tuple[torch.Tensor, ...]:
    """Features and identities of 23 queries and 41 gallery entries, one query without any match, some entries equal."""
    generator = torch.Generator().manual_seed(0)
    text, image = torch.randn(23, 6, generator=generator), torch.randn(41, 6, generator=generator)
    image[30:] = image[:11]
    query_pids, gallery_pids = torch.arange(23) % 7, torch.arange(41) % 6
    gallery_pids[gallery_pids == 5] = 6
    query_pids[4] = 99
    return text, image, query_pids, gallery_pids


@pytest.mark.parametrize("block", [None, 1, 5])
def test_sums_over_blocks_are_those_over_the_matrix(split: tuple[torch.Tensor, ...], block: int | None):
    text, image, query_pids, gallery_pids = split
    scores = sum_up_scores(*split, bins=50, block=block)
    similarity = F.normalize(text, dim=1) @ F.normalize(image, dim=1).T
    match, other = [0] * 50, [0] * 50
    for query, row in enumerate(similarity.tolist()):
        same = [bool(query_pids[query] == pid) for pid in gallery_pids]
        for value, is_match in zip(row, same, strict=True):
            (match if is_match else other)[min(int((value + 1) * 25), 49)] += 1
        best = max((value for value, is_match in zip(row, same, strict=True) if is_match), default=-torch.inf)
        wrong = max(value for value, is_match in zip(row, same, strict=True) if not is_match)
        assert scores.match_score_Q[query].item() == pytest.approx(best, abs=1e-6)
        assert scores.other_score_Q[query].item() == pytest.approx(wrong, abs=1e-6)
        place = scores.match_position_Q[query].item()
        assert place == -1 if best == -torch.inf else row[place] == pytest.approx(best, abs=1e-6)
    assert scores.match_N.tolist() == match
    assert scores.other_N.tolist() == other


def test_of_equal_matches_the_first_in_the_gallery_is_named():
    features = torch.eye(3)
    scores = sum_up_scores(features[:1], features[[1, 0, 0, 2]], torch.tensor([1]), torch.tensor([2, 1, 1, 1]))
    assert scores.match_position_Q.tolist() == [1]
    assert scores.match_N[-1] == 2 and scores.match_N.sum() == 3


def test_retrievals_agree_with_a_sort_and_with_the_metrics(split: tuple[torch.Tensor, ...]):
    text, image, query_pids, gallery_pids = split
    similarity = F.normalize(text, dim=1) @ F.normalize(image, dim=1).T
    ranks = rank_matches(*split).first_rank
    for k in (1, 10, 100):
        found = retrieve(*split, [22, 4, 0, 9], k)
        assert [each.query for each in found] == [22, 4, 0, 9]
        for each in found:
            expected = similarity[each.query].sort(descending=True)
            assert [hit.score for hit in each.hits] == pytest.approx(expected.values[:k].tolist(), abs=1e-6)
            assert [hit.rank for hit in each.hits] == list(range(1, min(k, 41) + 1))
            for hit in each.hits:
                assert hit.right == bool(gallery_pids[hit.position] == query_pids[each.query])
            if each.query == 4:
                assert each.match is None
            else:
                assert each.match.rank == ranks[each.query]
                assert gallery_pids[each.match.position] == query_pids[each.query]
