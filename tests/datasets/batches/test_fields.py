"""What a sample contributes to a batch: producers, trimming, aliases, second views."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from datasets.augmentation.irra import PAD
from datasets.batches.fields import TEXT_FIELDS, Sample, aliases, fields_to_make, image_views, producers_for, trim
from datasets.captions import AugmentOptions
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID, shared_tokenizer

TOKENS = np.array([START_ID, *range(100, 140), END_ID, 0, 0])
BOTH = ("images", "caption_ids", "images_aug", "caption_ids_aug")


def produce(
    fields: tuple[str, ...], options: AugmentOptions, index: int = 0, tokens: np.ndarray = TOKENS, length: int = 42
) -> dict[str, np.ndarray]:
    sample = Sample(1, 1, index, 0, 0, tokens, length, shared_tokenizer(), (96, 32))
    makers = producers_for(fields, image_views(fields, options))
    return {name: value for make in makers for name, value in make(sample, options).items()}


def test_every_text_field_comes_with_its_length():
    made = produce(TEXT_FIELDS, AugmentOptions())
    for field in TEXT_FIELDS:
        assert made[field].shape == TOKENS.shape
        assert made[f"{field}_lengths"] == 42, field
        assert made[f"{field}_lengths"].dtype == np.int64


def test_lengths_and_ends_survive_id_0():
    tokens = np.array([START_ID, 320, 786, 0, 263, END_ID, 0, 0])
    for index in range(50):
        made = produce(TEXT_FIELDS, AugmentOptions(mask_probability=0.9), index, tokens, 6)
        made = {name: value[None] for name, value in made.items()}
        trim(made, ())
        for field in TEXT_FIELDS:
            assert made[field].shape == (1, 6)
            assert made[field][0, [0, 3, 5]].tolist() == [START_ID, 0, END_ID], field
        assert made["mlm_labels"][0, [0, 3, 5]].tolist() == [0, 0, 0]


def test_without_a_word_nothing_is_hidden():
    tokens = np.array([START_ID, END_ID, 0, 0])
    for index in range(50):
        made = produce(TEXT_FIELDS, AugmentOptions(mask_probability=0.9), index, tokens, 2)
        assert all(made[field].tolist() == tokens.tolist() for field in TEXT_FIELDS)
        assert not made["mlm_labels"].any()


def test_published_masking_is_in_place():
    masked, clean = AugmentOptions(), AugmentOptions(clean_captions=True)
    with_mlm, without = ("images", "caption_ids", "mlm_ids", "mlm_labels"), ("images", "caption_ids")
    assert aliases(with_mlm, masked) == {"caption_ids": "mlm_ids", "caption_ids_lengths": "mlm_ids_lengths"}
    assert "caption_ids" not in fields_to_make(with_mlm, masked)
    assert aliases(with_mlm, clean) == {} and fields_to_make(with_mlm, clean) == with_mlm
    assert aliases(without, masked) == {} and fields_to_make(without, masked) == without
    assert "mlm_ids" in fields_to_make(without, AugmentOptions(MLM=True))


def test_trim_cuts_labels_with_their_ids():
    batch = {
        "mlm_ids": np.array([[5, 6, 0, 0]]),
        "mlm_labels": np.array([[0, 6, 0, 0]]),
        "mlm_ids_lengths": np.array([2]),
    }
    trim(batch, ())
    assert batch["mlm_ids"].tolist() == [[5, 6]] and batch["mlm_labels"].tolist() == [[0, 6]]


def test_trim_goes_by_lengths_and_leaves_padded_fields():
    batch = {name: np.array([[7, 8, 0, 9, 0, 0], [7, 9, 0, 0, 0, 0]]) for name in TEXT_FIELDS}
    batch |= {f"{name}_lengths": np.array([4, 2]) for name in TEXT_FIELDS}
    trim(batch, ("mlm_ids",))
    assert batch["caption_ids"].tolist() == batch["caption_ids_aug"].tolist() == [[7, 8, 0, 9], [7, 9, 0, 0]]
    assert batch["mlm_ids"].shape == (2, 6)


def test_trim_keeps_a_last_token_of_id_0():
    batch = {"caption_ids": np.array([[7, 0, 0]]), "caption_ids_lengths": np.array([2])}
    trim(batch, ())
    assert batch["caption_ids"].tolist() == [[7, 0]]


def test_another_visit_draws_anew():
    sample = Sample(1, 1, 0, 0, 0, TOKENS, 42, MASK_ID, (96, 32))
    drawn = {visit: replace(sample, visit=visit).rng("images").random() for visit in range(4)}
    assert len(set(drawn.values())) == 4
    assert drawn[0] == sample.rng("images").random()
    assert drawn[0] == np.random.default_rng((1, 1, 0, zlib.crc32(b"images"))).random(), "as before there were visits"


def test_unknown_field():
    with pytest.raises(ValueError, match="no producer makes the batch field 'depth'; there are images"):
        producers_for(("images", "depth"), image_views(("images",), AugmentOptions()))


@pytest.mark.parametrize("img_aug", [False, True])
def test_beside_an_augmented_view_the_image_is_plain(img_aug: bool):
    options = AugmentOptions(img_aug=img_aug, MLM=True)
    made = [produce(BOTH, options, index) for index in range(50)]
    assert all((fields["images"] == (0, PAD, PAD, 0, 0, 0, 0)).all() for fields in made)
    assert len({tuple(fields["images_aug"]) for fields in made}) > 40
    assert any(produce(("images",), options, index)["images"][0] for index in range(50)), "alone it is flipped"


def test_beside_a_masked_view_the_caption_is_clean():
    options = AugmentOptions(MLM=True)
    assert fields_to_make(BOTH, options) == BOTH
    assert not aliases(BOTH, options)
    made = produce(BOTH, options)
    assert (made["caption_ids"] == TOKENS).all()
    assert (made["caption_ids_aug"] == MASK_ID).any()
