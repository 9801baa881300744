"""Reranking: what the cross encoder knows decides the first K, and nothing behind them moves."""

from typing import NamedTuple

import pytest
import torch

import processor.rerank as reranking
from model.losses.base import Sizes
from model.losses.itm import ITM, ITMOptions
from model.matcher import Matcher, restore_matcher
from processor.evaluator import EvalSplit, encode_split, table_rows
from processor.metrics.ranks import rank_gallery, rank_matches, rank_similarity, summarise
from processor.rerank import rerank
from utils.device import Precision

CPU = Precision(torch.device("cpu"), torch.float32)
GALLERY, IDENTITIES, CAPTIONS, LENGTH = 60, 12, 2, 5


class Encoded(NamedTuple):
    tokens: torch.Tensor
    pooled: torch.Tensor


class Blurred(torch.nn.Module):
    """Tokens say the identity and the number of the image or caption; pooled features say next to nothing."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.image = torch.randn(GALLERY, 8, generator=generator)
        self.text = torch.randn(GALLERY * CAPTIONS, 8, generator=generator)
        self.encoded = 0

    def encode_image(self, images):
        self.encoded += len(images)
        number = images[:, 0, 0, 0].long()
        return Encoded(torch.stack([number % IDENTITIES, number], 1)[:, None].float(), self.image[number])

    def encode_text(self, ids):
        tokens = torch.stack([ids[:, 1] % IDENTITIES, ids[:, 1]], 1)[:, None].float()
        return Encoded(tokens.repeat(1, LENGTH, 1), self.text[ids[:, 1]])


def truth(text, image):
    return (text[:, 0, 0] == image[:, 0, 0]).float()


@pytest.fixture
def split():
    numbers = torch.arange(GALLERY, dtype=torch.uint8)
    images = [part[:, None, None, None].expand(-1, 3, 2, 2) for part in numbers.split(7)]
    captions = torch.arange(GALLERY * CAPTIONS)
    ids = torch.zeros(len(captions), LENGTH, dtype=torch.int64)
    ids[:, 1] = captions
    order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0))
    texts = [(place, ids[place]) for place in order.split(11)]
    places = torch.arange(GALLERY)
    return EvalSplit("test", images, texts, captions % IDENTITIES, places % IDENTITIES, lambda pixels: pixels, places)


def test_who_knows_the_truth_reaches_100(split):
    model = Blurred()
    features = encode_split(model, split, CPU)
    before = table_rows(features, split)["t2i"]
    assert before["R1"] < 40
    everything = rerank(model, truth, split, features, GALLERY, CPU)
    assert everything == pytest.approx(dict.fromkeys(("R1", "R5", "R10", "mAP", "mINP"), 100.0))
    assert rerank(model, truth, split, features, 10 * GALLERY, CPU) == everything, "K is cut to the gallery"
    some = rerank(model, truth, split, features, 10, CPU)
    assert some["R1"] == some["R5"] == some["R10"] == before["R10"]
    assert before["mAP"] < some["mAP"] < 100


@pytest.mark.parametrize("k", [1, 4, 25, GALLERY])
@pytest.mark.parametrize("room", [1, 1 << 10, 1 << 30])
def test_equals_moving_the_first_k_by_hand(split, monkeypatch, k, room):
    monkeypatch.setattr(reranking, "TOKEN_BYTES", (room, room))
    monkeypatch.setattr(reranking, "PAIRS_AT_ONCE", (5, 5))
    model = Blurred()
    features = encode_split(model, split, CPU)

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
    expected = rank_similarity(similarity, *pids)
    ours = rerank(model, coarse, split, features, k, CPU)
    assert ours == pytest.approx(summarise(expected), abs=1e-9)
    found = rank_matches(*features[:2], *pids, first_QK=first)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_ties_keep_the_order_of_the_cosine(split):
    model = Blurred()
    features = encode_split(model, split, CPU)
    same = rerank(model, lambda text, image: torch.zeros(len(text)), split, features, 20, CPU)
    assert same == table_rows(features, split)["t2i"]


def test_images_that_nobody_needs_are_not_encoded(split):
    model = Blurred()
    features = encode_split(model, split, CPU)
    features = features._replace(text_QD=features.image_GD[:1].expand(GALLERY * CAPTIONS, -1))
    model.encoded = 0
    reranking.match_scores(model, truth, split, torch.zeros(GALLERY * CAPTIONS, 3, dtype=torch.int64), CPU)
    assert model.encoded == 7


def test_scores_that_are_not_finite_are_an_error(split):
    model = Blurred()
    features = encode_split(model, split, CPU)
    with pytest.raises(ValueError, match="--rerank 3.*not finite"):
        rerank(model, lambda text, image: torch.full((len(text),), torch.nan), split, features, 3, CPU)


def test_matcher_is_read_off_a_checkpoint():
    torch.manual_seed(0)
    trained = Matcher(32, 3)
    state = {key.replace("cross_former", "parts.cross_former", 1): value for key, value in trained.state_dict().items()}
    state = {key if key.startswith("parts") else f"heads.{key}": value for key, value in state.items()}
    restored, used = restore_matcher({**state, "heads.id.classifier.bias": torch.zeros(1)}, 32, "best.pth")
    assert used == set(state)
    text, image = torch.randn(4, 6, 32), torch.randn(4, 9, 32)
    scores = restored(text, image)
    torch.testing.assert_close(scores, trained(text, image))
    head = ITM(ITMOptions(), Sizes(32, 0, 0, 0, 0))
    head.load_state_dict({key.removeprefix("itm."): v for key, v in trained.state_dict().items() if key[0] == "i"})
    belongs = head.match(trained.cross_former, text, image).softmax(dim=1)[:, 1]
    torch.testing.assert_close(scores.sigmoid(), belongs)


def test_a_run_without_a_matching_head_says_so():
    with pytest.raises(ValueError, match="best.pth: has no matching head.*itm.*without --rerank"):
        restore_matcher({"clip.visual.proj": torch.zeros(1)}, 32, "best.pth")
    with pytest.raises(ValueError, match="best.pth: does not fit the model\n  missing cross_former"):
        restore_matcher({"heads.itm.temp": torch.tensor(0.07)}, 32, "best.pth")
