"""What a model takes and data are made for: tokens, their tokenizer, and the format of images and captions.

Shape letters: N captions, L positions.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """Captions as a tokenizer returns them. Ids say nothing about a length: id 0 can be a word as well as padding."""

    ids: Tensor
    """(N, L) int64, padded at the end"""
    lengths: Tensor
    """(N,) int64, start and end token included"""


class Tokenizer:
    """Captions to ids and back; a backbone brings its own."""

    start_id: int
    end_id: int
    mask_id: int
    """stands for a hidden word; words that can be hidden have the ids from 1 to ``mask_id`` - 1"""

    def encode(self, text: str) -> list[int]:
        """Ids of a caption of any length, without start and end."""
        raise NotImplementedError

    def words(self, text: str) -> list[list[int]]:
        """Ids of every word (what blanks separate once the text is clean); one after the other they are the text's."""
        raise NotImplementedError

    def __call__(self, texts: Sequence[str], length: int) -> Tokens:
        """Captions truncated to ``length`` tokens, the last of which is then the end token."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first end token."""
        raise NotImplementedError


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
