"""mSD against the definition, one query after the other, and the published form against the published steps."""

import math

import pytest
import torch

from processor.metrics import EXTRA_METRICS, METRICS, ranks
from processor.metrics.ranks import rank_matches, retrieval_metrics

BOTH = {name: EXTRA_METRICS[name] for name in ("mSD", "mSD_published")}


def naive(similarity: torch.Tensor, query_pids: torch.Tensor, gallery_pids: torch.Tensor) -> dict[str, list[float]]:
    """The paper's steps in plain Python; the published form takes the r-th of the gallery for that of rank r."""
    values: dict[str, list[float]] = {name: [] for name in BOTH}
    for row, pid in zip(similarity.tolist(), query_pids.tolist(), strict=True):
        scores = [cosine / 2 + 0.5 for cosine in row]
        order = sorted(range(len(row)), key=lambda column: (-row[column], column))
        ranked_matches = [bool(gallery_pids[column] == pid) for column in order]
        for name, at_rank in (("mSD", [scores[column] for column in order]), ("mSD_published", scores)):
            matching = [score * hit for score, hit in zip(at_rank, ranked_matches, strict=True)]
            count = sum(ranked_matches)
            if not count:
                values[name].append(0.0)
                continue
            others = len(row) - count
            mean_other = (sum(scores) - sum(matching)) / others if others else 0.0
            ratio = sum(matching) / count / mean_other if mean_other > 0 else math.inf
            shares = [
                sum(matching[: rank + 1]) / sum(at_rank[: rank + 1]) for rank, hit in enumerate(ranked_matches) if hit
            ]
            values[name].append((1 - math.exp(-ratio)) * sum(shares) / count)
    return values


@pytest.mark.parametrize("sizes", [(1, 2, 2), (7, 3, 2), (40, 300, 9), (30, 600, 200), (25, 513, 3), (6, 40, 1)])
@pytest.mark.parametrize("levels", [3, 1 << 20])
@pytest.mark.parametrize("sort_from", [0, 512])
def test_equals_the_definition(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], levels: int, sort_from: int):
    monkeypatch.setattr(ranks, "SORT_FROM", sort_from)
    queries, gallery, identities = sizes
    generator = torch.Generator().manual_seed(gallery + levels)
    angle = torch.randint(1, levels, (queries, gallery), generator=generator) / levels
    features = torch.nn.functional.normalize(angle + 0.1, dim=1)
    pids = [torch.randint(0, identities, (n,), generator=generator) for n in (queries, gallery)]
    expected = naive(features, *pids)
    for block in (None, 1, 7):
        found = rank_matches(features, torch.eye(gallery), *pids, BOTH, block)
        for name in BOTH:
            assert found.values[name].tolist() == pytest.approx(expected[name], rel=1e-5, abs=1e-9), name


def test_negative_cosines_and_their_order():
    queries = torch.tensor([[1.0, 0.0]])
    gallery = torch.nn.functional.normalize(torch.tensor([[-1.0, 0.1], [0.0, 1.0], [1.0, 0.2], [-0.5, -1.0]]))
    expected = naive(queries @ gallery.T, torch.tensor([4]), torch.tensor([4, 1, 4, 2]))
    found = rank_matches(queries, gallery, [4], [4, 1, 4, 2], BOTH)
    assert {name: value.tolist() for name, value in found.values.items()} == {
        name: pytest.approx(value, rel=1e-5) for name, value in expected.items()
    }
    assert found.values["mSD"] != found.values["mSD_published"]


def test_what_the_gallery_order_changes():
    generator = torch.Generator().manual_seed(1)
    queries, gallery = torch.randn(30, 8, generator=generator), torch.randn(50, 8, generator=generator)
    pids = torch.arange(30) % 5, torch.arange(50) % 5
    order = torch.randperm(50, generator=generator)
    one = retrieval_metrics(queries, gallery, *pids, METRICS | BOTH)
    other = retrieval_metrics(queries, gallery[order], pids[0], pids[1][order], METRICS | BOTH)
    assert {**one, "mSD_published": 0} == pytest.approx({**other, "mSD_published": 0})
    assert one["mSD_published"] != pytest.approx(other["mSD_published"], rel=1e-4)


def test_a_gallery_of_matches_alone_reaches_the_most():
    found = retrieval_metrics(torch.eye(2), torch.ones(3, 2), [1, 1], [1, 1, 1], BOTH)
    assert found == pytest.approx(dict.fromkeys(BOTH, 100.0))
