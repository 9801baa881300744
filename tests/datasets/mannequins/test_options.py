"""Which drawings are refused."""

import re

import pytest

from datasets.mannequins.options import MannequinOptions


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_ids": -1}, "--mannequin_train_ids -1: expected at least 0"),
        ({"captions_per_image": 0}, "--mannequin_captions_per_image 0: expected at least 1"),
        ({"height": 5}, "--mannequin_height 5: expected at least 32"),
        ({"height": 2049}, "--mannequin_height 2049: expected at most 2048"),
        ({"seed": -3}, "--mannequin_seed -3: expected at least 0"),
        ({"images_per_id": "4-2"}, "--mannequin_images_per_id '4-2'"),
        ({"images_per_id": "many"}, "expected a number from 1, or a range such as 2-4"),
        ({"difficulty": "brutal"}, "choose one of easy, medium, hard"),
    ],
)
def test_bad_options(change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        MannequinOptions(**{f"mannequin_{name}": value for name, value in change.items()})


def test_image_range():
    assert MannequinOptions().image_range == (2, 4)
    assert MannequinOptions(mannequin_images_per_id="3").image_range == (3, 3)
