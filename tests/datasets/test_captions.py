"""Captions as training changes them: words deleted, masked for the model to guess, or hidden."""

import random

import numpy as np
import pytest
import torch

from datasets.captions import AugmentOptions, WordDeletion, hide_tokens, mask_tokens
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID, Tokenizer, clean

CAPTIONS = [
    "A man with a grey T-shirt, carrying a (red) umbrella; he's walking.",
    "woman",
    "  Café   crème coat\nand 2 bags  ",
    " ".join(f"word{n}" for n in range(90)),
    "",
]
TOKENS = np.array([START_ID, *range(100, 140), END_ID, 0, 0])


class Fixed:
    """A generator whose numbers are given."""

    def __init__(self, numbers):
        self.numbers = numbers

    def random(self, count):
        assert count == len(self.numbers)
        return np.array(self.numbers)


def test_equals_tokenising_the_shortened_caption():
    tokenizer, deletion, rng = ClipTokenizer(), WordDeletion(CAPTIONS, 77, 0.3), random.Random(0)
    for index, caption in enumerate(CAPTIONS):
        words = clean(caption).split(" ") if clean(caption) else []
        for _ in range(20):
            keep = [rng.random() < 0.7 for _ in words] if len(words) > 1 else [True] * len(words)
            if words and not any(keep):
                keep[0] = True
            shortened = " ".join(word for word, kept in zip(words, keep, strict=True) if kept)
            ids = deletion(index, Fixed([0.9 if kept else 0.1 for kept in keep]))
            assert torch.equal(torch.from_numpy(ids), tokenizer(shortened, 77)[0]), shortened


def test_a_word_always_stays():
    deletion = WordDeletion(CAPTIONS, 20, 1.0)
    tokenizer = ClipTokenizer()
    assert torch.equal(torch.from_numpy(deletion(1, np.random.default_rng(0))), tokenizer("woman", 20)[0])
    words = tokenizer.words(CAPTIONS[0])
    kept = {tuple(deletion(0, np.random.default_rng(n))[1:-1]) for n in range(200)}
    assert kept == {tuple(word + [49407] + [0] * (17 - len(word))) for word in words}


def test_the_share_is_the_probability():
    deletion = WordDeletion([CAPTIONS[3]], 1000, 0.1)
    full = (deletion(0, Fixed([1.0] * 90)) != 0).sum() - 2
    left = [(deletion(0, np.random.default_rng(n)) != 0).sum() - 2 for n in range(200)]
    assert 0.88 < np.mean(left) / full < 0.92


def test_masking_follows_the_published_rates():
    tokens = np.zeros(77, np.int64)
    tokens[:42] = [49406, *range(1000, 1040), 49407]
    chosen = masked = kept = 0
    for seed in range(3000):
        ids, labels = mask_tokens(tokens, np.random.default_rng(seed), AugmentOptions())
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
    tokens = np.array([49406, 320, 786, 49407, 0])
    options = AugmentOptions(mask_probability=0.0)
    ids, labels = mask_tokens(tokens, np.random.default_rng(0), options)
    assert ids.tolist() == [49406, MASK_ID, 786, 49407, 0]
    assert labels.tolist() == [0, 320, 0, 0, 0]


def test_half_of_the_tokens_are_hidden_and_the_first_always():
    hidden = np.stack([hide_tokens(TOKENS, np.random.default_rng(seed)) for seed in range(400)]) == MASK_ID
    assert hidden[:, 1].all()
    assert hidden[:, 2:41].mean(axis=0) == pytest.approx(0.5, abs=0.1)
    assert not hidden[:, [0, 41, 42, 43]].any()


def test_an_empty_caption_keeps_its_end():
    empty = np.array([START_ID, END_ID, 0])
    assert (hide_tokens(empty, np.random.default_rng(0)) == empty).all()
