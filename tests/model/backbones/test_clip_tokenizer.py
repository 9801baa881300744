"""The tokenizer against recorded ids and against open_clip's own."""

import json
import pickle
import random
import string
from pathlib import Path

import pytest
import torch

from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID, VOCAB_SIZE, WORD, Tokenizer, clean
from tests.helpers.golden import core_params

ENGLISH = """
a an the man woman person pedestrian wears wearing is with and his her black white grey blue-ish striped t-shirt jacket
jeans trousers sneakers backpack handbag umbrella ponytail shoulder-length hair, glasses; cardigan's it's they're khaki
carrying knee-length polka-dot 2 33 left/right "logo" (red) looks towards camera. walking forward! unbuttoned
"""


@pytest.fixture(scope="module")
def tokenizer():
    return ClipTokenizer()


@pytest.fixture(scope="module")
def published():
    return pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()


@pytest.mark.parametrize("folder", core_params())
def test_golden_captions(tokenizer, folder: Path):
    recorded = json.loads((folder / "core.json").read_text())
    for entry in recorded["tokenizer"]:
        expected = torch.zeros(1, 77, dtype=torch.int64)
        expected[0, : len(entry["ids"])] = torch.tensor(entry["ids"])
        assert torch.equal(tokenizer(entry["caption"]), expected), entry["caption"]
    specials = {"<|startoftext|>": START_ID, "<|endoftext|>": END_ID, "<|mask|>": MASK_ID}
    assert recorded["special_tokens"] == specials
    for token, id_ in specials.items():
        assert tokenizer.encode(f"a {token} b") == [320, id_, 321]


def random_text(rng):
    letters = string.ascii_letters * 3 + string.printable + "éüßñ—…“”’£€ﬁ①中文🎒Ж" + "\x00\x1b\x7f&;<>"
    kind = rng.random()
    if kind < 0.4:
        return " ".join(rng.choices(ENGLISH.split(), k=rng.randint(0, 60)))
    if kind < 0.7:  # unseen words: syllables put together
        return " ".join("".join(rng.choices(["ba", "ck", "tion", "st", "re", "ing", "o", "e"], k=5)) for _ in range(9))
    return "".join(rng.choices(letters, k=rng.randint(0, 60)))


def test_equals_open_clip_on_random_text(tokenizer, published):
    rng = random.Random(0)
    for _ in range(4000):
        text = random_text(rng)
        assert tokenizer.encode(text) == published.encode(text), text


def test_ascii_is_cleaned_as_by_the_slow_way():
    import ftfy

    rng = random.Random(1)
    for _ in range(3000):
        text = "".join(rng.choices(string.printable, k=30))
        if "&" not in text:
            assert clean(text) == " ".join(ftfy.fix_text(text).split()).lower()
    assert clean("a\x0bb\x1b[31mc &amp;amp; &eacute;") == "abc & é"


def test_every_entry_of_the_vocabulary_is_reached_or_replaced(tokenizer, published):
    """Whole words of the vocabulary are split as published, but for the one that makes room for the mask."""
    assert published.vocab_size == VOCAB_SIZE
    differing = []
    for entry, id_ in list(published.encoder.items())[512:-2]:
        word = bytes(published.byte_decoder[c] for c in entry.removesuffix("</w>")).decode(errors="replace")
        if entry.endswith("</w>") and WORD.fullmatch(word) and tokenizer.encode(word) != [id_]:
            differing.append(word)
    assert [word for word in differing if published.encode(word) != tokenizer.encode(word)] == ["jekyll"]


def test_the_word_behind_the_mask_is_split_further(tokenizer):
    ids = tokenizer.encode("Dr Jekyll's coat")
    assert MASK_ID not in ids
    assert tokenizer.decode(ids) == "dr jekyll 's coat"
    assert len(tokenizer.encode("jekyll")) == 2


def test_round_trip(tokenizer):
    for text in ("a man in a black coat", "她穿着一件红色的外套", "emoji 🎒 !", "naïve café", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode(tokenizer(text)[0].tolist()) == text
    assert tokenizer.decode([START_ID, 320, MASK_ID, 1746, END_ID, 0, 0]) == "a <|mask|> blue"


def test_length_and_truncation(tokenizer):
    ids = tokenizer(["a " * 100, "a man", ""], length=10)
    assert ids.dtype == torch.int64
    assert ids[0].tolist() == [START_ID, *[320] * 8, END_ID]
    assert ids[1].tolist() == [START_ID, 320, 786, END_ID, *[0] * 6]
    assert ids[2].tolist() == [START_ID, END_ID, *[0] * 8]
    assert tokenizer(["a " * 8], length=10).tolist() == [[START_ID, *[320] * 8, END_ID]]
    assert tokenizer(["a man"] * 3).shape == (3, 77)
    assert tokenizer([]).shape == (0, 77)
    assert tokenizer("a", length=2).tolist() == [[START_ID, END_ID]]
    with pytest.raises(ValueError, match="length 1"):
        tokenizer("a", length=1)


def test_goes_to_other_processes(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a man") == [320, 786]
