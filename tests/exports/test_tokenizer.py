"""``tokenizer.json`` gives our ids."""

import random
import string
from pathlib import Path

import pytest

from exports.tokenizer import tokenizer_of
from model.backbones.clip_tokenizer import shared_tokenizer
from model.backbones.file_tokenizer import FileTokenizer
from model.backbones.text_cleaning import CleanedTokenizer
from tests.helpers.tokenizer import write_tokenizer
from utils import UserError
from utils.inputs import Tokenizer

WRITTEN = (
    *("", "!", "jekyll and hyde", "it's her's, the boys' 90's", "don't've 'S", "  a\tWOMAN's\n coat ", "a " * 100),
    *("R&amp;B &quot;x&quot; &lt;3 &amp;quot;", "\u2018a\u2019 \u201cb\u201d", "cafe\u0301 caf\u00e9 na\u00efve"),
    *(
        "dash\u2014 \u00bd \u00b2 \u20ac",
        "\u6f22\u5b57 \U0001f600",
        "<|endoftext|> a",
        "a_b c-d/e",
        "\u00c0\u00c9 STRA\u00dfE",
    ),
)


@pytest.mark.parametrize("ours", [shared_tokenizer(), CleanedTokenizer(shared_tokenizer())], ids=["plain", "cleaned"])
def test_ids_are_ours(ours: Tokenizer):
    rng = random.Random(0)
    letters = string.ascii_letters + string.digits + string.punctuation.replace("&", "") + " " * 9 + "\n\te\u00e9\u0434"
    texts = [*WRITTEN, *("".join(rng.choices(letters, k=rng.randrange(60))) for _ in range(1000))]
    for length in (77, 9):
        found = tokenizer_of(ours, length).encode_batch(texts)
        expected = ours(texts, length).ids.tolist()
        assert not [text for text, row, one in zip(texts, expected, found, strict=True) if row != one.ids]
    assert tokenizer_of(ours, 9).decode(tokenizer_of(ours, 9).encode("A man's coat").ids[:6]) == "a man 's coat"


def test_every_token_has_its_id():
    vocabulary, merges = shared_tokenizer().vocabulary()
    assert len(vocabulary) == 49408 and sorted(vocabulary.values()) == list(range(49408))
    assert all(vocabulary[left + right] == id_ for id_, (left, right) in enumerate(merges, start=512))


@pytest.mark.parametrize("canonical", [True, False])
def test_a_tokenizer_of_another_model(canonical: bool, tmp_path: Path):
    ours = FileTokenizer(write_tokenizer(tmp_path / "tokenizer.json"), canonical)
    texts = ["A man, in a long_coat!", "  the\tred  bag", "", "it\u2019s &amp; a woman with [shoes] \\ ^", "a " * 40]
    theirs = [caption.ids for caption in tokenizer_of(ours, 12).encode_batch(texts)]
    assert theirs == ours(texts, 12).ids.tolist()


def test_another_tokenizer_is_refused():
    with pytest.raises(UserError, match="Tokenizer has no tokenizer.json"):
        tokenizer_of(Tokenizer(), 64)


def test_more_words_than_cleaning_keeps_are_refused():
    with pytest.raises(UserError, match="--clean_text keeps 77 words"):
        tokenizer_of(CleanedTokenizer(shared_tokenizer()), 168)
