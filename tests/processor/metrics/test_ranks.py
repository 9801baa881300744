"""The streamed metrics against a naive loop, a stable sort, recorded numbers, and bad input."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from processor.metrics import ranks
from processor.metrics.nearest import rank_gallery
from processor.metrics.ranks import (
    QueryMetrics,
    rank_matches,
    require_matches,
    retrieval_metrics,
    summarise,
)
from processor.metrics.recall import recall_at
from tests.helpers.golden import core_params
from utils import UserError


def naive(similarity, query_pids, gallery_pids):
    """One query after the other, in plain Python: the definitions, word for word."""
    first, values = [], {name: [] for name in ("R1", "R5", "R10", "mAP", "mINP")}
    for row, pid in zip(similarity.tolist(), query_pids.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda column: (-row[column], column))
        places = [place + 1 for place, column in enumerate(order) if gallery_pids[column] == pid]
        first.append(places[0] if places else 0)
        for k in (1, 5, 10):
            values[f"R{k}"].append(float(bool(places) and places[0] <= k))
        ap = sum((n + 1) / place for n, place in enumerate(places)) / len(places) if places else 0.0
        values["mAP"].append(ap)
        values["mINP"].append(len(places) / places[-1] if places else 0.0)
    return QueryMetrics(torch.tensor(first), {name: torch.tensor(value).double() for name, value in values.items()})


def exact_features(rows, generator):
    """Rows of +-1/4 and zeros of length 1: every dot product is exact in float32, and many are equal."""
    values = torch.zeros(rows, 32)
    values[:, :16] = torch.randint(0, 2, (rows, 16), generator=generator) * 2.0 - 1
    return values.gather(1, torch.rand(rows, 32, generator=generator).argsort(1)) / 4


def rank_similarity(similarity, *pids, **options):
    """`rank_matches` of features that have these similarities, up to the length of each row."""
    return rank_matches(similarity, torch.eye(similarity.shape[1]), *pids, **options)


def assert_equal(ours, theirs):
    assert torch.equal(ours.first_rank, theirs.first_rank)
    assert list(ours.values) == list(theirs.values)
    for name, values in ours.values.items():
        torch.testing.assert_close(values, theirs.values[name], rtol=0, atol=1e-7, msg=name)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 3, 2), (40, 300, 9), (30, 600, 200), (25, 513, 3), (20, 256, 1)])
@pytest.mark.parametrize("levels", [2, 30, 1 << 20])
@pytest.mark.parametrize("sort_from", [0, 512])
def test_ranks_equal_a_naive_loop(monkeypatch, sizes, levels, sort_from):
    monkeypatch.setattr(ranks, "SORT_FROM", sort_from)
    queries, gallery, identities = sizes
    generator = torch.Generator().manual_seed(queries * levels)
    similarity = torch.randint(-levels, levels, (queries, gallery), generator=generator) / levels
    query_pids = torch.randint(0, identities, (queries,), generator=generator)
    gallery_pids = torch.randint(0, identities, (gallery,), generator=generator)
    expected = naive(similarity, query_pids, gallery_pids)
    for block in (None, 1, 3, queries):
        assert_equal(rank_similarity(similarity, query_pids, gallery_pids, block=block), expected)


@pytest.mark.parametrize("tile", [1, 1 << 11, 1 << 30])
def test_features_with_many_ties_whatever_the_blocks(monkeypatch, tile):
    monkeypatch.setattr(ranks, "TILE_ELEMENTS", (tile, tile))
    generator = torch.Generator().manual_seed(1)
    queries, gallery = exact_features(50, generator), exact_features(700, generator)
    query_pids, gallery_pids = torch.arange(50) % 40, torch.randint(0, 40, (700,), generator=generator)
    similarity = queries @ gallery.T
    assert len(similarity.unique()) < 40
    expected = naive(similarity, query_pids, gallery_pids)
    order = similarity.sort(dim=1, descending=True, stable=True)
    for block in (None, 1, 7, 49, 50, 1000):
        assert_equal(rank_matches(queries, gallery, query_pids, gallery_pids, block=block), expected)
        scores, positions = rank_gallery(queries, gallery, 10, block)
        assert torch.equal(scores, order.values[:, :10])
        assert torch.equal(positions, order.indices[:, :10])


@pytest.mark.parametrize("dim", [3, 64, 511, 512])
def test_duplicates_of_a_match_tie_with_it(dim):
    """Whatever its place in the matrix product, an equal feature has an equal similarity."""
    generator = torch.Generator().manual_seed(dim)
    gallery = torch.randn(211, dim, generator=generator).repeat(5, 1)  # 1055 rows: no multiple of anything
    queries = torch.randn(37, dim, generator=generator)
    gallery_pids = torch.arange(211).repeat(5)
    gallery_pids[:211] += 1000  # only the first copies are someone else
    query_pids = torch.arange(37)
    for block in (None, 1, 5):
        found = rank_matches(queries, gallery, query_pids, gallery_pids, block=block)
        _, positions = rank_gallery(queries, gallery, 211 * 5, block)
        assert torch.equal(
            positions.view(37, 211, 5) % 211, (positions.view(37, 211, 5) % 211)[..., :1].expand(-1, -1, 5)
        )
        assert torch.equal(positions.view(37, 211, 5).diff(dim=2), torch.full((37, 211, 4), 211))
        # each match is ranked directly behind its copy: places 5n+2 ... 5n+5
        assert torch.all(found.first_rank % 5 == 2)
        torch.testing.assert_close(found.values["mINP"], 4 / (found.first_rank + 3).double())


@pytest.mark.parametrize("noise", [1.0, 100.0])
def test_middle_size_equals_a_sort(noise):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(60, 128, generator=generator)
    query_pids, gallery_pids = (torch.randint(0, 60, (n,), generator=generator) for n in (1500, 2100))
    queries = centres[query_pids] + noise * torch.randn(1500, 128, generator=generator)
    gallery = centres[gallery_pids] + noise * torch.randn(2100, 128, generator=generator)
    normalise = torch.nn.functional.normalize
    similarity = normalise(queries) @ normalise(gallery).T
    order = similarity.sort(dim=1, descending=True, stable=True).indices
    hits = (gallery_pids[order] == query_pids[:, None]).double()
    places = torch.arange(1, 2101)
    precision = hits.cumsum(1) / places
    expected = {
        **{f"R{k}": 100 * hits[:, :k].amax(1).mean().item() for k in (1, 5, 10)},
        "mAP": 100 * ((precision * hits).sum(1) / hits.sum(1)).mean().item(),
        "mINP": 100 * (hits.sum(1) / (hits * places).amax(1)).mean().item(),
    }
    for block in (None, 100, 1499):
        assert retrieval_metrics(queries, gallery, query_pids, gallery_pids, block=block) == pytest.approx(
            expected, abs=1e-3
        )


def test_shards_of_the_queries_add_up():
    generator = torch.Generator().manual_seed(2)
    queries, gallery = exact_features(31, generator), exact_features(90, generator)
    query_pids, gallery_pids = torch.arange(31) % 9, torch.arange(90) % 8
    whole = rank_matches(queries, gallery, query_pids, gallery_pids)
    parts = [rank_matches(queries[s], gallery, query_pids[s], gallery_pids) for s in (slice(0, 10), slice(10, 31))]
    joined = QueryMetrics(
        torch.cat([part.first_rank for part in parts]),
        {name: torch.cat([part.values[name] for part in parts]) for name in whole.values},
    )
    assert_equal(joined, whole)
    assert summarise(joined) == summarise(whole)
    assert summarise(whole)["unmatched"] == 3


def test_a_gallery_smaller_than_k():
    features = torch.eye(3)
    result = retrieval_metrics(features, features, [4, 5, 6], [4, 5, 6])
    assert result == {"R1": 100.0, "R5": 100.0, "R10": 100.0, "mAP": 100.0, "mINP": 100.0}
    other = {"R20": recall_at(20)}
    assert retrieval_metrics(features[:1], features[:1], [9], [9], other) == {"R20": 100}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_is_ranked_in_float32(dtype):
    features = torch.randn(40, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    pids = torch.arange(40)
    expected = retrieval_metrics(features.float(), features.float(), pids, pids % 7, allow_unmatched=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert retrieval_metrics(features, features, pids, pids)["R1"] == 100
        assert retrieval_metrics(features, features, pids, pids % 7, allow_unmatched=True) == expected


def test_an_error_in_one_thread_stops_the_others(monkeypatch):
    done = []

    def fail(*arguments):
        done.append(arguments)
        raise MemoryError

    monkeypatch.setattr(ranks, "_tile_ranks", fail)
    threads = torch.get_num_threads()
    with pytest.raises(MemoryError):
        rank_matches(torch.ones(500, 4), torch.ones(5, 4), torch.zeros(500).long(), torch.zeros(5).long(), block=1)
    assert len(done) <= threads
    assert torch.get_num_threads() == threads


def test_queries_without_a_match():
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(4))
    pids = torch.tensor([1, 7, 2, 8, 8])
    with pytest.raises(UserError, match=r"^3 of 5 queries .* query 1 \(pid 7\)\. --allow_unmatched"):
        retrieval_metrics(features, features, pids, [1, 2, 2, 2, 2])
    with pytest.raises(UserError, match="--allow_unmatched"):
        require_matches(pids, [1, 2, 2, 2, 2])
    require_matches(pids, [1, 2, 2, 2, 2], allow_unmatched=True)
    result = retrieval_metrics(features, features, pids, [1, 2, 2, 2, 2], allow_unmatched=True)
    assert result.pop("unmatched") == 3
    assert result == retrieval_metrics(features[[0, 2]], features, pids[[0, 2]], [1, 2, 2, 2, 2])
    assert "unmatched" not in retrieval_metrics(features, features, pids, pids, allow_unmatched=True)
    with pytest.raises(UserError, match="none of the 5 queries"):
        retrieval_metrics(features, features, pids, [3] * 5, allow_unmatched=True)


def bad(**changes):
    arguments = {"query_features": torch.ones(2, 4), "gallery_features": torch.ones(3, 4)}
    return arguments | {"query_pids": torch.zeros(2).long(), "gallery_pids": torch.zeros(3).long()} | changes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (bad(query_features=torch.tensor([[1.0] * 4, [1, 2, torch.nan, 4]])), "query features: row 1 is not finite"),
        (bad(gallery_features=torch.full((3, 4), torch.inf)), r"gallery features: row 0 is not finite \(3 such"),
        (bad(query_features=torch.zeros(0, 4), query_pids=[]), "no query features"),
        (bad(gallery_features=torch.zeros(0, 4), gallery_pids=[]), "no gallery features"),
        (bad(query_pids=torch.zeros(3).long()), "query pids have shape"),
        (bad(gallery_features=torch.ones(3, 5)), "query features have size 4, gallery features 5"),
        (bad(query_features=torch.ones(2, 4).long()), "expected floats"),
        (bad(query_features=torch.ones(2)), "expected floats of shape"),
        (bad(block=0), "block is 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(**arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_a_gpu():
    generator = torch.Generator().manual_seed(5)
    queries, gallery = exact_features(300, generator), exact_features(900, generator)
    query_pids, gallery_pids = torch.arange(300) % 50, torch.arange(900) % 50
    found = rank_matches(queries.cuda(), gallery.cuda(), query_pids, gallery_pids)
    assert all(values.is_cuda for values in found.values.values())
    found = QueryMetrics(found.first_rank.cpu(), {name: values.cpu() for name, values in found.values.items()})
    assert_equal(found, rank_matches(queries, gallery, query_pids, gallery_pids))


@pytest.mark.parametrize("folder", core_params())
def test_golden_metrics(folder: Path):
    tensors = load_file(folder / "core.safetensors")
    for number, recorded in enumerate(json.loads((folder / "core.json").read_text())["metrics"]):
        similarity = tensors[f"metrics{number}/similarity"]
        query, gallery = tensors[f"metrics{number}/query_pids"], tensors[f"metrics{number}/gallery_pids"]
        described = torch.isin(gallery, query)
        ours = {
            "t2i": summarise(rank_similarity(similarity, query, gallery)),
            "i2t_over_gallery_images_that_have_a_caption": summarise(
                rank_similarity(similarity.T[described], gallery[described], query)
            ),
        }
        for task, values in recorded.items():
            assert {name: ours[task][name] for name in values} == pytest.approx(values, abs=1e-3), task
