"""What a model takes and data are made for: tokens, their tokenizer, and the format of images and captions.

Shape letters: N captions, L positions.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils import UserError
from utils.log import hide_bar


class Tokens(NamedTuple):
    """Captions as a tokenizer returns them. Ids say nothing about a length: id 0 can be a word as well as padding."""

    ids: Tensor
    """(N, L) int64, padded at the end"""
    lengths: Tensor
    """(N,) int64, start and end token included"""


class Tokenizer:
    """Captions to ids and back; a backbone brings its own.

    Subclasses set the ids and define :meth:`encode`, :meth:`words` and :meth:`decode`.
    """

    start_id: int | None
    """stands before every caption; None where captions begin with their first word"""
    end_id: int
    pad_id: int
    """fills the places behind the end token; may be the id of a word or of the end token"""
    mask_id: int | None
    """stands for a hidden word; None where the tokenizer has no such token"""
    is_word_V: np.ndarray
    """(V,) bool, by id: the words that masking may hide, and put in place of others"""

    @cached_property
    def word_ids(self) -> np.ndarray:
        """Ids of the words that masking may hide, ascending."""
        return np.flatnonzero(self.is_word_V)

    @property
    def first_word(self) -> int:
        """The position of a caption's first word."""
        return 0 if self.start_id is None else 1

    @property
    def num_special(self) -> int:
        """How many tokens of a caption are not its own: start and end, or the end alone."""
        return self.first_word + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a caption of any length, without start and end."""
        raise NotImplementedError

    def words(self, text: str) -> list[list[int]]:
        """Ids of every word (what blanks separate once the text is clean); one after the other they are the text's."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first end token; start tokens are dropped."""
        raise NotImplementedError

    def __call__(self, texts: str | Sequence[str], length: int) -> Tokens:
        """Captions between start and end token, truncated and padded to ``length``. One caption may be a string.

        Raises UserError where ``length`` leaves no room for start and end.
        """
        if length < self.num_special:
            raise UserError(f"--text_length {length}: start and end alone take {self.num_special} tokens")
        texts = [texts] if isinstance(texts, str) else texts
        ids_NL = np.zeros((len(texts), length), dtype=np.int64)
        lengths_N = np.zeros(len(texts), dtype=np.int64)
        bar = tqdm(texts, desc="tokenising", unit="caption", leave=False, disable=hide_bar(), delay=1)
        for row, text in enumerate(bar):
            ids_NL[row], lengths_N[row] = self.framed(self.encode(text), length)
        return Tokens(torch.from_numpy(ids_NL), torch.from_numpy(lengths_N))

    def framed(self, ids: Sequence[int], length: int) -> tuple[np.ndarray, int]:
        """A caption's ids between start and end, truncated and padded to (``length``,) int64, and how many are tokens.

        A caption that is too long loses its last words, never its end token.
        """
        ids = ids[: length - self.num_special]
        count = len(ids) + self.num_special
        ids_L = np.full(length, self.pad_id, dtype=np.int64)
        if self.start_id is not None:
            ids_L[0] = self.start_id
        ids_L[self.first_word : count - 1] = ids
        ids_L[count - 1] = self.end_id
        return ids_L, count


class InputFormat(NamedTuple):
    """How images and captions must be prepared for a model."""

    tokenizer: Tokenizer
    text_length: int
    """tokens that a caption is truncated to"""
    reads_padding: bool
    """whether the padding behind a caption changes its feature, so that it must not be cut off"""
    image_size: tuple[int, int]
    """(height, width) in pixels"""
    pixel_mean: tuple[float, float, float]
    """of RGB values in 0..1, subtracted"""
    pixel_std: tuple[float, float, float]
    """what is left is divided by it"""
    resize_filter: str = "bilinear"
    """what images are resized with in evaluation, or bicubic; always with antialias"""
