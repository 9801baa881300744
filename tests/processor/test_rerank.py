"""Reranking: what cosine and cross encoder know decides on the first K, and nothing behind them moves."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch

from processor import rerank as reranking
from processor.evaluator import Evaluator, encode_split
from processor.metrics import METRICS
from processor.metrics.nearest import rank_gallery
from processor.metrics.ranks import rank_matches, summarise
from utils import UserError
from utils.device import Precision

GALLERY, IDENTITIES, CAPTIONS, LENGTH = 60, 12, 2, 5


def rerank(*args) -> dict[str, float]:
    return summarise(reranking.rerank(*args))


class Encoded(NamedTuple):
    tokens: torch.Tensor
    feature: torch.Tensor


class Blurred(torch.nn.Module):
    """Tokens say the identity and the number of the image or caption; pooled features say next to nothing."""

    precision = Precision(torch.device("cpu"), torch.float32)

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.image = torch.randn(GALLERY, 8, generator=generator)
        self.text = torch.randn(GALLERY * CAPTIONS, 8, generator=generator)
        self.encoded = 0

    def encode_image(self, images):
        assert not self.training
        self.encoded += len(images)
        number = images[:, 0, 0, 0].long()
        return Encoded(torch.stack([number % IDENTITIES, number], 1)[:, None].float(), self.image[number])

    def encode_text(self, ids, lengths):
        assert not self.training and (lengths == LENGTH).all()
        tokens = torch.stack([ids[:, 1] % IDENTITIES, ids[:, 1]], 1)[:, None].float()
        return Encoded(tokens.repeat(1, LENGTH, 1), self.text[ids[:, 1]])


class NumberedSplit:
    """Images and captions that are their own numbers; captions come in another order."""

    name = "test"
    num_image_batches, num_text_batches = 9, 11
    query_pids = torch.arange(GALLERY * CAPTIONS) % IDENTITIES
    gallery_positions = torch.arange(GALLERY)
    gallery_pids = gallery_positions % IDENTITIES

    def image_batches(self) -> Iterator[torch.Tensor]:
        for part in self.gallery_positions.float().split(7):
            yield part[:, None, None, None].expand(-1, 3, 2, 2)

    def text_batches(self) -> Iterator[tuple[torch.Tensor, ...]]:
        order = torch.randperm(GALLERY * CAPTIONS, generator=torch.Generator().manual_seed(0))
        for place in order.split(11):
            ids = torch.zeros(len(place), LENGTH, dtype=torch.int64)
            ids[:, 1] = place
            yield place, ids, torch.full((len(place),), LENGTH)


def truth(text, image):
    return (text[:, 0, 0] == image[:, 0, 0]).float()


@pytest.fixture
def split() -> NumberedSplit:
    return NumberedSplit()


def test_who_knows_the_truth_reaches_100(split):
    model = Blurred()
    rows, features, _ = Evaluator(model, split).evaluate()
    before = rows["t2i"]
    assert before["R1"] < 40
    everything = rerank(model, truth, split, features, GALLERY)
    assert everything == pytest.approx(dict.fromkeys(METRICS, 100.0))
    assert rerank(model, truth, split, features, 10 * GALLERY) == everything, "K is cut to the gallery"
    some = rerank(model, truth, split, features, 10)
    assert some["R1"] == some["R5"] == some["R10"] == before["R10"]
    assert before["mAP"] < some["mAP"] < 100


@pytest.mark.parametrize("k", [1, 4, 25, GALLERY])
@pytest.mark.parametrize("room", [1, 1 << 10, 1 << 30])
def test_equals_moving_the_first_k_by_hand(split, monkeypatch, k, room):
    monkeypatch.setattr(reranking, "TOKEN_BYTES", (room, room))
    monkeypatch.setattr(reranking, "PAIRS_AT_ONCE", (5, 5))
    model = Blurred()
    features = encode_split(model, split)

    def coarse(text, image):
        return ((text[:, 0, 1] * 7 + image[:, 0, 1] * 13) % 5).round()

    ranking = rank_gallery(features.text_QD, features.image_GD, GALLERY)[1]
    similarity = torch.zeros(ranking.shape)
    first = torch.empty(len(ranking), k, dtype=torch.int64)
    for query, row in enumerate(ranking.tolist()):
        head = sorted(row[:k], key=lambda image, query=query: -((query * 7 + image * 13) % 5))
        first[query] = torch.tensor(head)
        for place, image in enumerate(head + row[k:]):
            similarity[query, image] = -place
    pids = split.query_pids, split.gallery_pids
    expected = rank_matches(similarity, torch.eye(GALLERY), *pids)
    ours = rerank(model, coarse, split, features, k)
    assert ours == pytest.approx(summarise(expected), abs=1e-9)
    found = rank_matches(*features[:2], *pids, first_QK=first)
    assert torch.equal(found.first_rank, expected.first_rank)
    assert all(torch.equal(found.values[name], expected.values[name]) for name in METRICS)


def test_ties_keep_the_order_of_the_cosine(split):
    model = Blurred()
    rows, features, _ = Evaluator(model, split).evaluate()
    same = rerank(model, lambda text, image: torch.zeros(len(text)), split, features, 20)
    assert same == rows["t2i"]


def test_the_sum_ranks_as_the_true_distribution_does(split):
    """A matcher that knows how the truth differs from the draws gives, with the cosine, the order of the truth."""
    model, temperature = Blurred(), 0.05
    features = encode_split(model, split)
    cosine_QG = torch.nn.functional.normalize(features.text_QD) @ torch.nn.functional.normalize(features.image_GD).T
    true_QG = torch.randn(cosine_QG.shape, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)

    def log_odds(text, image):
        query, place = text[:, 0, 1].long(), image[:, 0, 1].long()
        return (true_QG - cosine_QG / temperature)[query, place]

    expected = summarise(rank_matches(true_QG, torch.eye(GALLERY), split.query_pids, split.gallery_pids))
    assert rerank(model, log_odds, split, features, GALLERY, temperature) == pytest.approx(expected)
    assert rerank(model, log_odds, split, features, GALLERY) != pytest.approx(expected)


def test_images_that_nobody_needs_are_not_encoded(split):
    model = Blurred()
    features = encode_split(model, split)
    features = features._replace(text_QD=features.image_GD[:1].expand(GALLERY * CAPTIONS, -1))
    model.encoded = 0
    reranking.match_scores(model, truth, split, torch.zeros(GALLERY * CAPTIONS, 3, dtype=torch.int64))
    assert model.encoded == 7


def test_scores_that_are_not_finite_are_an_error(split):
    model = Blurred()
    features = encode_split(model, split)
    with pytest.raises(UserError, match="--rerank 3.*not finite"):
        rerank(model, lambda text, image: torch.full((len(text),), torch.nan), split, features, 3)
