"""Captions as TBPS-CLIP cleans them before it tokenises (``--clean_text``)."""

import re
from collections.abc import Iterable

from utils.inputs import Tokenizer

MARKS = r"[.!\"()*#:;~]"
"""what becomes a blank; commas, hyphens and apostrophes stay"""
SPACES = r"\s{2,}"
"""what becomes one blank; a single tab or line break stays"""
MOST_WORDS = 77


def cleaned(text: str) -> str:
    """A caption in lower case without :data:`MARKS`, of at most :data:`MOST_WORDS` words (Cao et al., AAAI 2024)."""
    text = re.sub(SPACES, " ", re.sub(MARKS, " ", text.lower()))
    return " ".join(text.rstrip("\n").strip(" ").split(" ")[:MOST_WORDS])


class CleanedTokenizer(Tokenizer):
    """Another tokenizer over captions that are cleaned first."""

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner
        self.start_id, self.end_id = inner.start_id, inner.end_id
        self.pad_id, self.mask_id = inner.pad_id, inner.mask_id
        self.is_word_V = inner.is_word_V

    def encode(self, text: str) -> list[int]:
        """See the base class."""
        return self.inner.encode(cleaned(text))

    def words(self, text: str) -> list[list[int]]:
        """See the base class."""
        return self.inner.words(cleaned(text))

    def decode(self, ids: Iterable[int]) -> str:
        """See the base class."""
        return self.inner.decode(ids)
