"""Word deletion: what is left equals tokenising the shortened caption."""

import random

import numpy as np
import torch

from datasets.captions import WordDeletion
from model.backbones.clip_tokenizer import Tokenizer, clean

CAPTIONS = [
    "A man with a grey T-shirt, carrying a (red) umbrella; he's walking.",
    "woman",
    "  Café   crème coat\nand 2 bags  ",
    " ".join(f"word{n}" for n in range(90)),
    "",
]


class Fixed:
    """A generator whose numbers are given."""

    def __init__(self, numbers):
        self.numbers = numbers

    def random(self, count):
        assert count == len(self.numbers)
        return np.array(self.numbers)


def test_equals_tokenising_the_shortened_caption():
    tokenizer, deletion, rng = Tokenizer(), WordDeletion(CAPTIONS, 77, 0.3), random.Random(0)
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
    tokenizer = Tokenizer()
    assert torch.equal(torch.from_numpy(deletion(1, np.random.default_rng(0))), tokenizer("woman", 20)[0])
    words = tokenizer.words(CAPTIONS[0])
    kept = {tuple(deletion(0, np.random.default_rng(n))[1:-1]) for n in range(200)}
    assert kept == {tuple(word + [49407] + [0] * (17 - len(word))) for word in words}


def test_the_share_is_the_probability():
    deletion = WordDeletion([CAPTIONS[3]], 1000, 0.1)
    full = (deletion(0, Fixed([1.0] * 90)) != 0).sum() - 2
    left = [(deletion(0, np.random.default_rng(n)) != 0).sum() - 2 for n in range(200)]
    assert 0.88 < np.mean(left) / full < 0.92
