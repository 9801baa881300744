"""Captions as training changes them: words deleted, masked for the model to guess, or hidden."""

import random
from collections import Counter

import numpy as np
import pytest

from datasets.captions import (
    AugmentOptions,
    WordDeletion,
    augment_tokens,
    caption_oddities,
    hide_tokens,
    mask_tokens,
    words_in,
)
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID, clean, shared_tokenizer

CAPTIONS = [
    "A man with a grey T-shirt, carrying a (red) umbrella; he's walking.",
    "woman",
    "  Café   crème coat\nand 2 bags  ",
    " ".join(f"word{n}" for n in range(90)),
    "",
    "!( a man !; in red !/ and blue !$",
    "&nbsp;",
]
ZERO_INSIDE = ["a man !(", "!( in red", "!;", "two !/ bags", "!$ !$", "!(!(!("]
"""captions with a token of id 0, which is also what pads"""
NO_TOKENS = np.array([START_ID, END_ID, 0, 0])
TOKENS = np.array([START_ID, *range(100, 140), END_ID, 0, 0])


def mask(tokens: np.ndarray, length: int, seed: int, options: AugmentOptions) -> tuple[np.ndarray, np.ndarray]:
    return mask_tokens(
        tokens, words_in(tokens, length, shared_tokenizer()), shared_tokenizer(), np.random.default_rng(seed), options
    )


def hide(tokens: np.ndarray, length: int, seed: int) -> np.ndarray:
    return hide_tokens(
        tokens, words_in(tokens, length, shared_tokenizer()), shared_tokenizer(), np.random.default_rng(seed)
    )


def tokenised(caption: str, length: int) -> tuple[np.ndarray, int]:
    ids, lengths = shared_tokenizer()([caption], length)
    return ids[0].numpy(), int(lengths)


class Fixed:
    """A generator whose numbers are given."""

    def __init__(self, numbers):
        self.numbers = numbers

    def random(self, count):
        assert count == len(self.numbers)
        return np.array(self.numbers)


@pytest.mark.parametrize("room", [77, 9, 4, 3])
def test_equals_tokenising_the_shortened_caption(room: int):
    deletion, rng = WordDeletion(shared_tokenizer(), CAPTIONS, room, 0.3), random.Random(0)
    for index, caption in enumerate(CAPTIONS):
        words = clean(caption).split(" ") if clean(caption) else []
        for _ in range(20):
            keep = [rng.random() < 0.7 for _ in words] if len(words) > 1 else [True] * len(words)
            if words and not any(keep):
                keep[0] = True
            shortened = " ".join(word for word, kept in zip(words, keep, strict=True) if kept)
            ids, length = deletion(index, Fixed([0.9 if kept else 0.1 for kept in keep]))
            expected, expected_length = tokenised(shortened, room)
            assert ids.tolist() == expected.tolist(), shortened
            assert length == expected_length, shortened
            assert ids[length - 1] == END_ID and not ids[length:].any(), shortened


def test_a_word_always_stays():
    tokenizer = shared_tokenizer()
    deletion = WordDeletion(tokenizer, CAPTIONS, 20, 1.0)
    ids, length = deletion(1, np.random.default_rng(0))
    assert (ids.tolist(), length) == (tokenised("woman", 20)[0].tolist(), 3)
    for index in (0, 5):
        words = tokenizer.words(CAPTIONS[index])
        kept = {(tuple(ids), length) for n in range(200) for ids, length in [deletion(index, np.random.default_rng(n))]}
        padded = {(START_ID, *word, END_ID, *[0] * (18 - len(word))): len(word) + 2 for word in words}
        assert kept == set(padded.items())


def test_the_share_is_the_probability():
    deletion = WordDeletion(shared_tokenizer(), [CAPTIONS[3]], 1000, 0.1)
    full = deletion(0, Fixed([1.0] * 90))[1] - 2
    left = [deletion(0, np.random.default_rng(n))[1] - 2 for n in range(200)]
    assert 0.88 < np.mean(left) / full < 0.92


def test_masking_follows_the_published_rates():
    tokens = np.zeros(77, np.int64)
    tokens[:42] = [START_ID, *range(1000, 1040), END_ID]
    chosen = masked = kept = 0
    for seed in range(3000):
        ids, labels = mask(tokens, 42, seed, AugmentOptions())
        where = labels > 0
        assert where.any() and not where[0] and not where[41:].any()
        assert (labels[where] == tokens[where]).all() and (ids[~where] == tokens[~where]).all()
        chosen += where.sum()
        masked += (ids[where] == MASK_ID).sum()
        kept += (ids[where] == tokens[where]).sum()
    assert chosen / (3000 * 40) == pytest.approx(0.15, abs=0.003)
    assert masked / chosen == pytest.approx(0.8, abs=0.01)
    assert kept / chosen == pytest.approx(0.1, abs=0.01)


def test_something_is_always_masked():
    tokens = np.array([START_ID, 320, 786, END_ID, 0])
    ids, labels = mask(tokens, 4, 0, AugmentOptions(mask_probability=0.0))
    assert ids.tolist() == [START_ID, MASK_ID, 786, END_ID, 0]
    assert labels.tolist() == [0, 320, 0, 0, 0]


def test_the_first_masked_word_need_not_be_the_first_token():
    ids, labels = mask(np.array([START_ID, 0, 263, END_ID, 0]), 4, 0, AugmentOptions(mask_probability=0.0))
    assert ids.tolist() == [START_ID, 0, MASK_ID, END_ID, 0]
    assert labels.tolist() == [0, 0, 263, 0, 0]


def test_half_of_the_tokens_are_hidden_and_the_first_always():
    hidden = np.stack([hide(TOKENS, 42, seed) for seed in range(400)]) == MASK_ID
    assert hidden[:, 1].all()
    assert hidden[:, 2:41].mean(axis=0) == pytest.approx(0.5, abs=0.1)
    assert not hidden[:, [0, 41, 42, 43]].any()


@pytest.mark.parametrize("seed", range(5))
def test_a_caption_that_tokenises_to_nothing_stays_as_it_is(seed: int):
    assert tokenised("&nbsp;", 4)[0].tolist() == NO_TOKENS.tolist()
    assert hide(NO_TOKENS, 2, seed).tolist() == NO_TOKENS.tolist()
    for options in (AugmentOptions(), AugmentOptions(mask_probability=1.0), AugmentOptions(masked_token_rate=0.0)):
        ids, labels = mask(NO_TOKENS, 2, seed, options)
        assert ids.tolist() == NO_TOKENS.tolist()
        assert not labels.any()


def plain_augmentation(tokens: list[int], dice: random.Random) -> list[int]:
    """The published rule for a caption without its padding, token by token."""
    out = []
    for token in tokens:
        fate = dice.random()
        if not 0 < token < MASK_ID or fate < 0.8:
            out.append(token)
        elif fate < 0.92:
            out.append(MASK_ID)
        elif fate < 0.96:
            out.append(dice.randint(1, MASK_ID - 1))
    return out


class Recorded:
    """A generator that keeps the numbers that it gave."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def random(self, count: int) -> np.ndarray:
        self.fates = self.rng.random(count)
        return self.fates

    def integers(self, low: int, high: int, count: int) -> np.ndarray:
        assert (low, high) == (0, MASK_ID - 1), "positions among the words, whose ids are 1 to that before the mask's"
        drawn = self.rng.integers(low, high, count)
        self.others = drawn + 1
        return drawn


class Replay(random.Random):
    """Gives what another generator has given, position by position."""

    def __init__(self, recorded: Recorded):
        super().__init__()
        self.position, self.recorded = -1, recorded

    def random(self) -> float:
        self.position += 1
        return self.recorded.fates[self.position]

    def randint(self, low: int, high: int) -> int:
        return self.recorded.others[self.position]


@pytest.mark.parametrize("caption", [*CAPTIONS, *ZERO_INSIDE])
def test_text_augmentation_equals_a_plain_loop(caption: str):
    for room in (77, 9, 3):
        tokens, length = tokenised(caption, room)
        before = tokens.copy()
        for seed in range(30):
            rng = Recorded(seed)
            ids, left = augment_tokens(tokens, length, shared_tokenizer(), rng)
            expected = plain_augmentation(tokens[:length].tolist(), Replay(rng))
            assert ids.tolist() == expected + [0] * (room - len(expected))
            assert left == len(expected)
            assert ids.dtype == np.int64
            assert (ids[0], ids[left - 1]) == (START_ID, END_ID)
        assert (tokens == before).all(), "the tokens of the data set stay"


def test_text_augmentation_has_the_shares_of_a_plain_loop():
    tokens = np.zeros(77, np.int64)
    tokens[:72] = [START_ID, *range(1000, 1070), END_ID]
    trials, dice = 3000, random.Random(0)
    drawn = {"ours": [], "plain": []}
    for seed in range(trials):
        ids, length = augment_tokens(tokens, 72, shared_tokenizer(), np.random.default_rng(seed))
        drawn["ours"].append(ids[1 : length - 1].tolist())
        drawn["plain"].append(plain_augmentation(tokens[:72].tolist(), dice)[1:-1])
    shares = {}
    for name, captions in drawn.items():
        words = np.concatenate(captions)
        own, hidden = (words >= 1000) & (words < 1070), words == MASK_ID
        counts = np.array([own.sum(), hidden.sum(), len(words) - own.sum() - hidden.sum(), trials * 70 - len(words)])
        shares[name] = counts / (trials * 70)
        others = words[~own & ~hidden]
        assert others.min() < 50 and others.max() > MASK_ID - 50, "replaced by any word"
        assert np.mean(others) == pytest.approx(MASK_ID / 2, rel=0.02)
    assert shares["ours"] == pytest.approx([0.8, 0.12, 0.04, 0.04], abs=0.003)
    assert shares["plain"] == pytest.approx(shares["ours"], abs=0.004)


def test_fates_of_tokens_are_independent():
    tokens = np.array([START_ID, 500, 600, END_ID])
    fates = Counter()
    for seed in range(8000):
        ids, length = augment_tokens(tokens, 4, shared_tokenizer(), np.random.default_rng(seed))
        words = ids[1 : length - 1].tolist()
        fates["both" if words == [500, 600] else "none" if not words else len(words)] += 1
    assert fates["both"] / 8000 == pytest.approx(0.64, abs=0.015)
    assert fates["none"] / 8000 == pytest.approx(0.0016, abs=0.0015)
    assert fates["none"] > 0, "a caption may lose all its words"
    assert fates[1] / 8000 == pytest.approx(2 * 0.04 * 0.96, abs=0.01)


@pytest.mark.parametrize("caption", ZERO_INSIDE)
def test_id_0_inside_is_a_token(caption: str):
    tokens, length = tokenised(caption, 12)
    assert 0 in tokens[:length], "the caption is meant to have one"
    assert tokens[length - 1] == END_ID
    words = words_in(tokens, length, shared_tokenizer())
    assert words.tolist() == [0 < position < length - 1 and tokens[position] > 0 for position in range(12)]
    for seed in range(20):
        masked, labels = mask(tokens, length, seed, AugmentOptions(mask_probability=0.9))
        hidden = hide(tokens, length, seed)
        for changed in (masked, hidden):
            assert (changed[~words] == tokens[~words]).all(), "start, end, id 0 and padding stay"
        assert (labels[~words] == 0).all() and labels.any()
        assert (hidden == MASK_ID).any() or not words[1]


@pytest.mark.parametrize("caption", ZERO_INSIDE)
def test_truncation_beside_id_0_keeps_the_end(caption: str):
    tokens, whole = tokenised(caption, 12)
    for room in range(3, whole + 1):
        ids, length = tokenised(caption, room)
        assert ids.tolist() == [*tokens[: room - 1], END_ID]
        assert length == room
        short = WordDeletion(shared_tokenizer(), [caption], room, 0.0)(0, np.random.default_rng(0))
        assert (short[0].tolist(), short[1]) == (ids.tolist(), room)


def test_odd_captions_are_counted():
    fine = ["a man.", "\u7537\u4eba", "tab\tand\nline", "x" * 2000]
    assert caption_oddities(fine) == []
    no_word, control, long = caption_oddities([*fine, "...", "!?", "a \0 man", "bell \x07", "a man " * 170_000])
    assert no_word == "2 captions have no word (such as '...')"
    assert control.startswith("2 captions have control characters (such as 'a \\x00 man')")
    assert long.startswith("1 caption has more than 2000 characters (such as 'a man a man")
