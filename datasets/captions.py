"""What happens to training captions: words are deleted, tokens augmented or masked.

Shape letters: T tokens of a caption, L text length.
"""

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.augmentation import chosen_views
from utils import UserError
from utils.inputs import Tokenizer
from utils.options import opt


@dataclass(frozen=True)
class AugmentOptions:
    """Flags that change what a training sample looks like."""

    img_aug: bool = opt(False, "augment training images: flip, pad and crop, random erasing (otherwise flip only)")
    augment: tuple[str, ...] = opt(
        (),
        "NAME: how training images are varied (plain, flip, irra, pool, pool_distinct, simclr, or operations joined by "
        "'+': flip, jitter, rotation, crop, grayscale, erasing, blur); FIELD=NAME for one view of several [as "
        "--img_aug says]",
    )
    back_translation: float = opt(
        0.0, "probability of training on a caption's back translation in its place, where it has one", least=0, most=1
    )
    back_translation_file: Path | None = opt(
        None, "json list of {file_path, captions_bt}, for data sets whose own file has no captions_bt"
    )
    identity_captions: float = opt(
        0.0,
        "probability of training on a caption drawn from all those of the image's identity in place of the pair's own",
        least=0,
        most=1,
    )
    txt_aug: bool = opt(
        False, "augment training captions: 12 % of the tokens masked, 4 % replaced at random, 4 % removed"
    )
    MLM: bool = opt(False, "mask captions as for mlm even when mlm is not among the losses (published flag)")
    clean_captions: bool = opt(
        False, "show masked captions to the mlm loss only; by default, as published, every loss sees them masked"
    )
    word_deletion: float = opt(
        0.0, "probability of deleting each word of a training caption (at least one is kept)", least=0, most=1
    )
    mask_probability: float = opt(0.15, "share of tokens chosen for masked language modelling", least=0, most=1)
    masked_token_rate: float = opt(0.8, "share of chosen tokens replaced by the mask", least=0, most=1)
    masked_token_unchanged_rate: float = opt(0.1, "share of chosen tokens left as they are", least=0, most=1)

    def __post_init__(self) -> None:
        chosen_views(self.augment, self.img_aug)
        if self.masked_token_rate + self.masked_token_unchanged_rate > 1:
            raise UserError(
                f"--masked_token_rate {self.masked_token_rate} and --masked_token_unchanged_rate "
                f"{self.masked_token_unchanged_rate}: their sum is above 1"
            )


LONG_CAPTION = 2000
"""characters; more than any text tower reads"""


def caption_oddities(captions: Sequence[str]) -> list[str]:
    """What is odd about captions, in words and with how many there are: nothing keeps them from being used."""
    kinds = {
        "no word": [caption for caption in captions if not re.search(r"\w", caption)],
        "control characters": [caption for caption in captions if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", caption)],
        f"more than {LONG_CAPTION} characters": [caption for caption in captions if len(caption) > LONG_CAPTION],
    }
    return [
        f"{len(found)} caption{'s have' if len(found) > 1 else ' has'} {kind} (such as {reprlib.repr(found[0])})"
        for kind, found in kinds.items()
        if found
    ]


class WordDeletion:
    """Random deletion (Wei & Zou, EMNLP 2019, EDA) from captions that are split into words and tokens once."""

    def __init__(self, tokenizer: Tokenizer, captions: Sequence[str], length: int, probability: float) -> None:
        """Shortened captions are truncated or padded to ``length``; ``probability`` is that of each word."""
        self._tokenizer, self._length, self._probability = tokenizer, length, probability
        words = [tokenizer.words(caption) for caption in captions]
        # Flat arrays: a list per caption would be copied page by page into every loader process.
        self._tokens = np.array([id_ for caption in words for word in caption for id_ in word], np.int32)
        self._word = np.array([n for caption in words for n, word in enumerate(caption) for _ in word], np.int32)
        self._starts = np.cumsum([0, *(sum(map(len, caption)) for caption in words)])
        self._counts = np.array([len(caption) for caption in words])

    def __call__(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """A caption without some of its words, at least one of which is kept; see :meth:`Tokenizer.framed`."""
        kept_words = rng.random(self._counts[index]) >= self._probability
        if len(kept_words) and not kept_words.any():
            kept_words[rng.integers(len(kept_words))] = True
        part = slice(self._starts[index], self._starts[index + 1])
        return self._tokenizer.framed(self._tokens[part][kept_words[self._word[part]]], self._length)


_KEPT, _MASKED, _REPLACED = 0.8, 0.12, 0.04
"""shares of tokens in ``augment_tokens``; the remaining 4 % are removed"""


def augment_tokens(
    tokens_L: np.ndarray, length: int, tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Mask, replace or remove tokens at random, each on its own (RDE, Qin et al., CVPR 2024; its ``--txt_aug``).

    Args:
        tokens_L: (L,) ids of a caption, already truncated.
        length: how many of them are tokens.
        tokenizer: says what stands for a masked token, and which words may take the place of others.
        rng: source of the choices.

    Returns:
        (L,) ids and how many of them are tokens. Those behind a removed one have moved up. Start, end and whatever
        :func:`words_in` leaves out stay; where all words were removed nothing else is left.
    """
    word_L = words_in(tokens_L, length, tokenizer)
    fate_L = rng.random(len(tokens_L))
    other_L = tokenizer.word_ids[rng.integers(0, len(tokenizer.word_ids), len(tokens_L))]
    masked_L = word_L & (fate_L >= _KEPT)
    replaced_L = word_L & (fate_L >= _KEPT + _MASKED)
    stays_L = ~(word_L & (fate_L >= _KEPT + _MASKED + _REPLACED))
    changed = np.where(replaced_L, other_L, np.where(masked_L, tokenizer.mask_id, tokens_L))[stays_L]
    augmented_L = np.full_like(tokens_L, tokenizer.pad_id)
    augmented_L[: len(changed)] = changed
    return augmented_L, length - (len(tokens_L) - len(changed))


def words_in(tokens_L: np.ndarray, length: int, tokenizer: Tokenizer) -> np.ndarray:
    """(L,) bool: which positions hold a word that can be hidden; start, end and padding do not."""
    return (np.arange(len(tokens_L)) < length) & tokenizer.is_word_V[tokens_L]


def mask_tokens(
    tokens_L: np.ndarray, word_L: np.ndarray, tokenizer: Tokenizer, rng: np.random.Generator, options: AugmentOptions
) -> tuple[np.ndarray, np.ndarray]:
    """BERT-style masking of a caption (Devlin et al., NAACL 2019; IRRA, section 3.2).

    Args:
        tokens_L: (L,) token ids.
        word_L: (L,) the positions that may be chosen.
        tokenizer: says what stands for a masked token, and which words may take the place of others.
        rng: source of the choices.
        options: the three rates.

    Returns:
        (L,) masked ids and (L,) labels: the original id where a token was chosen, else 0. At least one is chosen,
        except in a caption without words.
    """
    chosen_L = word_L & (rng.random(len(tokens_L)) < options.mask_probability)
    fate_L = rng.random(len(tokens_L))
    other_L = tokenizer.word_ids[rng.integers(0, len(tokenizer.word_ids), len(tokens_L))]
    if not chosen_L.any() and word_L.any():
        first = word_L.argmax()
        chosen_L[first] = True
        fate_L[first] = 0.0 if options.masked_token_rate > 0 else 1.0
    masked_L = np.where(chosen_L & (fate_L < options.masked_token_rate), tokenizer.mask_id, tokens_L)
    random_L = chosen_L & (fate_L >= options.masked_token_rate + options.masked_token_unchanged_rate)
    masked_L = np.where(random_L, other_L, masked_L)
    return masked_L, np.where(chosen_L, tokens_L, 0)


def hide_tokens(tokens_L: np.ndarray, word_L: np.ndarray, tokenizer: Tokenizer, rng: np.random.Generator) -> np.ndarray:
    """Replace every word of a caption by the mask with probability 0.5, and the first one always (DGCMIA, 2025).

    Of the token ids (L,), those at the positions ``word_L`` (L,) may be replaced.
    """
    hidden_L = rng.random(len(tokens_L)) < 0.5
    hidden_L[tokenizer.first_word] = True
    return np.where(word_L & hidden_L, tokenizer.mask_id, tokens_L)
