"""Who is drawn."""

import pytest

from datasets.mannequins.people import LEVELS, people


@pytest.mark.parametrize("difficulty", LEVELS)
def test_no_two_identities_are_the_same(difficulty):
    everyone = list(people(5, LEVELS[difficulty], (400, 60, 100)))
    assert len({person for _, _, person in everyone}) == 560
    assert [split for split, _, _ in everyone] == ["train"] * 400 + ["val"] * 60 + ["test"] * 100
