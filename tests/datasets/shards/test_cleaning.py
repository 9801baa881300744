"""Which captions are of no use."""

import pytest

from datasets.shards.cleaning import REASONS, clean, fault_of


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A man in a coat.", None),
        ("The sorry state of his coat", None),
        ("", "empty caption"),
        ("[description] of a man", "template caption"),
        ("A <gender> in a coat", "template caption"),
        ("I'm sorry, I can't describe people", "refusal"),
        ("As an AI model", "refusal"),
        ("a \udc00 man", "not Unicode"),
    ],
)
def test_reasons(caption, reason):
    assert fault_of(caption) == reason
    assert reason is None or reason in REASONS


def test_good_captions_keep_their_order_and_lose_white_space():
    good, others = clean("a.jpg", ["  one \n two", " ", "three"])
    assert good == ["one two", "three"]
    assert [tuple(each) for each in others] == [("a.jpg", "empty caption", "")]
