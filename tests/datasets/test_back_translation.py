"""Back translations: read from the annotation or a file of their own, and trained on in place of captions."""

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.annotations import DataError, read
from datasets.back_translation import add_back_translations
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.source import Images
from datasets.label_noise import NoiseOptions, exchange_captions
from datasets.records import Dataset, ImageRecord
from model.backbones.clip_tokenizer import shared_tokenizer
from utils.inputs import InputFormat

FORM = InputFormat(shared_tokenizer(), 20, False, (8, 4), (0, 0, 0), (1, 1, 1))
RECORDS = (
    ImageRecord(0, 0, Path("d/imgs/a/0.jpg"), ("a red coat", "blue shoes"), ("coat which is red", "")),
    ImageRecord(1, 1, Path("d/imgs/a/1.jpg"), ("green trousers",)),
)
TEXTS = AugmentOptions(back_translation=0.5)


def annotation(tmp_path: Path, **more: object) -> Path:
    record = {"id": 0, "split": "train", "file_path": "a/0.jpg", "captions": ["a red coat", "blue shoes"], **more}
    (tmp_path / "x.json").write_text(json.dumps([record]))
    return tmp_path


def test_they_come_with_the_annotation(tmp_path):
    data = read(annotation(tmp_path, captions_bt=["red coat ", ""]), "X", ("x.json",))
    assert data.train[0].back_translations == ("red coat", "")
    assert read(annotation(tmp_path), "X", ("x.json",)).train[0].back_translations == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["one"], "record 0: 1 captions_bt, 2 captions"),
        ("one", "record 0: captions_bt 'one'"),
        ([1, 2], "back translations that are not a list of texts"),
    ],
)
def test_faulty_ones_name_the_record(tmp_path, given, message):
    with pytest.raises(DataError, match=message):
        read(annotation(tmp_path, captions_bt=given), "X", ("x.json",))


def pairs(records=RECORDS, options: AugmentOptions = TEXTS) -> TrainPairs:
    return TrainPairs(records, Images((8, 4)), FORM, ("caption_ids",), (), options, seed=3)


def texts(data: TrainPairs, epochs: int = 200) -> list[list[str]]:
    shown = []
    for index in range(len(data)):
        rows = [data.__getitems__([(epoch, index)])["caption_ids"][0].tolist() for epoch in range(1, epochs)]
        shown.append([shared_tokenizer().decode(row) for row in rows])
    return shown


def test_each_caption_is_replaced_by_its_own_half_of_the_time():
    first, second, third = texts(pairs())
    assert set(first) == {"a red coat", "coat which is red"}
    assert 0.35 < np.mean([text == "a red coat" for text in first]) < 0.65
    assert set(second) == {"blue shoes"} and set(third) == {"green trousers"}


def test_words_are_deleted_from_what_stands_in_its_place():
    options = AugmentOptions(back_translation=1.0, word_deletion=0.4)
    first, _, _ = texts(pairs(options=options))
    assert {word for text in first for word in text.split()} == {"coat", "which", "is", "red"}
    assert len(set(first)) > 5


def test_a_pass_without_augmentation_has_the_captions():
    plain = pairs(options=AugmentOptions(back_translation=1.0)).with_fields(("caption_ids",), plain=True)
    assert [set(each) for each in texts(plain, 5)] == [{"a red coat"}, {"blue shoes"}, {"green trousers"}]


def test_a_file_of_their_own(tmp_path, messages):
    path = tmp_path / "train_reid.json"
    path.write_text(json.dumps([{"file_path": "a/1.jpg", "captions": ["green trousers"], "captions_bt": ["pants"]}]))
    options = AugmentOptions(back_translation=0.1, back_translation_file=path)
    found = add_back_translations(Dataset("X", RECORDS[1:], (), ()), options)
    assert found.train[0].back_translations == ("pants",)
    assert "back translations: 1 of 1 training captions have one (captions_bt)" in messages.text


def test_without_any_it_is_said_once(messages):
    data = Dataset("X", RECORDS[1:], (), ())
    assert add_back_translations(data, TEXTS) is data
    assert "back translations: 0 of 1 training captions have one (captions_bt)" in messages.text
    assert texts(pairs(RECORDS[1:])) == [["green trousers"] * 199]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"file_path": "a/1.jpg"}], "record 0 needs file_path and captions_bt"),
        ([{"file_path": "a/1.jpg", "captions_bt": ["x", "y"]}], "a/1.jpg has 2 back translations, but 1 captions"),
        ([{"file_path": "b/1.jpg", "captions_bt": ["x"]}], "knows none of the training images of X"),
        ({}, "expected a list"),
    ],
)
def test_a_faulty_file(tmp_path, content, message):
    (tmp_path / "bt.json").write_text(json.dumps(content))
    options = AugmentOptions(back_translation=0.1, back_translation_file=tmp_path / "bt.json")
    with pytest.raises(DataError, match=message):
        add_back_translations(Dataset("X", RECORDS[1:], (), ()), options)


def test_they_move_with_exchanged_captions():
    data = Dataset("X", RECORDS, (), ())
    moved = exchange_captions(data, NoiseOptions(noisy_rate=1.0, noisy_seed=2))
    original = {"a red coat": "coat which is red", "blue shoes": "", "green trousers": ""}
    assert list(moved.caption_index) != [0, 1, 2]
    for record in moved.train:
        for caption, translation in zip(record.captions, record.back_translations or ("",) * 2, strict=False):
            assert translation == original[caption]
