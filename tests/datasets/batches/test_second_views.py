"""The second view of a pair: an augmented image and a half-masked caption beside the plain ones."""

import numpy as np
import pytest

from datasets.augmentation import PAD
from datasets.batches.fields import Sample, aliases, fields_to_make, producers_for
from datasets.captions import AugmentOptions, hide_tokens
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID

TOKENS = np.array([START_ID, *range(100, 140), END_ID, 0, 0])
BOTH = ("images", "caption_ids", "images_aug", "caption_ids_aug")


def produce(fields: tuple[str, ...], options: AugmentOptions, index: int = 0) -> dict[str, np.ndarray]:
    sample = Sample(1, 1, index, 0, 0, TOKENS, (96, 32))
    return {name: value for make in producers_for(fields) for name, value in make(sample, options).items()}


def test_half_of_the_tokens_are_hidden_and_the_first_always():
    hidden = np.stack([hide_tokens(TOKENS, np.random.default_rng(seed)) for seed in range(400)]) == MASK_ID
    assert hidden[:, 1].all()
    assert hidden[:, 2:41].mean(axis=0) == pytest.approx(0.5, abs=0.1)
    assert not hidden[:, [0, 41, 42, 43]].any()


def test_an_empty_caption_keeps_its_end():
    empty = np.array([START_ID, END_ID, 0])
    assert (hide_tokens(empty, np.random.default_rng(0)) == empty).all()


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
