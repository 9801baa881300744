"""Which drawings are refused."""

import re

import pytest

from datasets.mannequins.options import MannequinOptions


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images_per_id": "4-2"}, "--mannequin_images_per_id '4-2'"),
        ({"images_per_id": "many"}, "expected a number from 1, or a range such as 2-4"),
    ],
)
def test_bad_options(change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        MannequinOptions(**{f"mannequin_{name}": value for name, value in change.items()})


def test_image_range():
    assert MannequinOptions().image_range == (2, 4)
    assert MannequinOptions(mannequin_images_per_id="3").image_range == (3, 3)
