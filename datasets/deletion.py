"""Word deletion, a text augmentation (Wei & Zou, EMNLP 2019, EDA: random deletion).

Shape letters: T tokens of a caption, L text length.
"""

from collections.abc import Sequence

import numpy as np

from datasets.tokenizer import END_ID, START_ID, shared_tokenizer


class WordDeletion:
    """Captions as words, split into tokens once, from which some words are then left out."""

    def __init__(self, captions: Sequence[str], length: int, probability: float) -> None:
        """
        Args:
            captions: as in the annotation.
            length: to which the shortened captions are cut or zero padded.
            probability: of each word, to be left out.
        """
        self._length, self._probability = length, probability
        tokenizer = shared_tokenizer()
        words = [tokenizer.words(caption) for caption in captions]
        # Flat arrays: a list per caption would be copied page by page into every loader process.
        self._tokens = np.array([id_ for caption in words for word in caption for id_ in word], np.int32)
        self._word = np.array([n for caption in words for n, word in enumerate(caption) for _ in word], np.int32)
        self._starts = np.cumsum([0, *(sum(map(len, caption)) for caption in words)])
        self._counts = np.array([len(caption) for caption in words])

    def __call__(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A caption without some of its words, (L,) int64: start, words, end, zeros. At least one word is kept."""
        kept_words = rng.random(self._counts[index]) >= self._probability
        if len(kept_words) and not kept_words.any():
            kept_words[rng.integers(len(kept_words))] = True
        part = slice(self._starts[index], self._starts[index + 1])
        kept_T = self._tokens[part][kept_words[self._word[part]]][: self._length - 2]
        ids_L = np.zeros(self._length, np.int64)
        ids_L[0], ids_L[len(kept_T) + 1] = START_ID, END_ID
        ids_L[1 : len(kept_T) + 1] = kept_T
        return ids_L
