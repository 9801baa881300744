"""Training pairs: captions of the same identity in place of a pair's own."""

from pathlib import Path

import numpy as np
import pytest

from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.source import Images
from datasets.records import ImageRecord
from model.backbones.clip_tokenizer import shared_tokenizer
from utils.inputs import InputFormat

FORM = InputFormat(shared_tokenizer(), 20, False, (8, 4), (0, 0, 0), (1, 1, 1))
RECORDS = (
    ImageRecord(7, 0, Path("0.jpg"), ("a red coat", "blue shoes"), ("coat which is red", "")),
    ImageRecord(2, 1, Path("1.jpg"), ("green trousers",)),
    ImageRecord(7, 2, Path("2.jpg"), ("long hair",)),
)
OWN = ["a red coat", "blue shoes", "green trousers", "long hair"]


def captions(options: AugmentOptions, epochs: int = 400, plain: bool = False) -> list[list[str]]:
    """What each pair shows in each epoch."""
    data = TrainPairs(RECORDS, Images((8, 4)), FORM, ("caption_ids",), (), options, seed=3)
    data = data.with_fields(("caption_ids",), plain=True) if plain else data
    keys = [[(epoch, index) for epoch in range(epochs)] for index in range(len(data))]
    return [
        [shared_tokenizer().decode(row) for row in data.__getitems__(each)["caption_ids"].tolist()] for each in keys
    ]


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_captions_of_an_identity_are_drawn_alike(probability: float):
    shown = captions(AugmentOptions(identity_captions=probability))
    family = {"a red coat", "blue shoes", "long hair"}
    assert [set(each) for each in shown] == [family, family, {"green trousers"}, family]
    for own, each in zip(OWN, shown, strict=True):
        share = np.mean([text == own for text in each])
        expected = 1.0 if own == "green trousers" else 1 - probability + probability / 3
        assert share == pytest.approx(expected, abs=0.08)


def test_without_the_flag_and_in_a_plain_pass_each_pair_keeps_its_own():
    for shown in (captions(AugmentOptions(), 3), captions(AugmentOptions(identity_captions=1.0), 3, plain=True)):
        assert [set(each) for each in shown] == [{own} for own in OWN]


def test_a_drawn_caption_may_be_translated_and_lose_words():
    translated = captions(AugmentOptions(identity_captions=1.0, back_translation=1.0))
    assert set(translated[3]) == {"coat which is red", "blue shoes", "long hair"}
    shortened = captions(AugmentOptions(identity_captions=1.0, word_deletion=0.5))
    assert {"coat", "a red"} < set(shortened[3]) and "green" in shortened[2]
