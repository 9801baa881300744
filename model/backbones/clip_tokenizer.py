"""CLIP's byte-pair tokenizer, with the last of its merges given up for a mask token.

The merges are those that the open_clip_torch package ships; the package is located, not imported (that takes seconds).
Ids: 0..255 bytes, 256..511 bytes that end a word, 512..49404 merges, 49405 mask, 49406 start, 49407 end. 0 pads, too.

Shapes: N captions, L positions.
"""

import functools
import gzip
import html
import itertools
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import ftfy
import numpy as np
import regex

from utils.inputs import Tokenizer, Tokens

MASK = "<|mask|>"
START = "<|startoftext|>"
END = "<|endoftext|>"
MASK_ID, START_ID, END_ID = 49405, 49406, 49407
VOCAB_SIZE = 49408
CONTEXT_LENGTH = 77

WORD = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|<\|mask\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
# ASCII without "&" and without control characters: neither ftfy nor html.unescape changes anything in it but line ends.
CLEAN = regex.compile(r"[\t\n\r -%'-~]*+")


def clean(text: str) -> str:
    """Repair encoding and HTML entities, collapse white space, lower the case."""
    if not CLEAN.fullmatch(text):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


class ClipTokenizer(Tokenizer):
    """Captions to ids and back; words are looked up in a cache, so each is split only once."""

    def __init__(self) -> None:
        """Raises FileNotFoundError where the open_clip_torch package or its merges are missing."""
        self.start_id, self.end_id, self.mask_id, self.pad_id = START_ID, END_ID, MASK_ID, 0
        ids_V = np.arange(VOCAB_SIZE)
        self.is_word_V = (ids_V > 0) & (ids_V < MASK_ID)  # not 0, the word "!": the published masking passes it over
        symbols = _byte_symbols()
        self._bytes = [bytes([byte]) for byte in symbols] + [bytes([byte]) + b" " for byte in symbols]
        self._byte_ids = {byte: id_ for id_, byte in enumerate(symbols)}
        ids = {symbol: id_ for id_, symbol in enumerate([*symbols.values(), *(s + "</w>" for s in symbols.values())])}
        self._merges: dict[tuple[int, int], int] = {}
        for left, right in _read_merges(MASK_ID - len(ids)):
            merged = len(ids)
            self._merges[ids[left], ids[right]] = merged
            self._bytes.append(self._bytes[ids[left]] + self._bytes[ids[right]])
            ids[left + right] = merged
        self._bytes += [token.encode() + b" " for token in (MASK, START, END)]
        self._words: dict[str, list[int]] = {MASK: [MASK_ID], START: [START_ID], END: [END_ID]}

    def encode(self, text: str) -> list[int]:
        """Ids of a caption of any length, without start and end; special tokens written out in it become their ids."""
        return self._encode(clean(text))

    def words(self, text: str) -> list[list[int]]:
        """Ids of every word (what blanks separate once the text is clean); one after the other they are the text's."""
        return [ids for word in clean(text).split(" ") if (ids := self._encode(word))]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in WORD.findall(text):
            if word not in self._words:
                self._words[word] = self._split(word)
            ids += self._words[word]
        return ids

    def __call__(self, texts: str | Sequence[str], length: int = CONTEXT_LENGTH) -> Tokens:
        """See the base class."""
        return super().__call__(texts, length)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first end token, lower case, a blank after each word; start tokens are dropped."""
        before_end = itertools.takewhile(lambda id_: id_ != END_ID, ids)
        text = b"".join(self._bytes[id_] for id_ in before_end if id_ != START_ID)
        return text.decode("utf-8", errors="replace").rstrip(" ")

    def vocabulary(self) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """The id of every token, and the merges in the order of learning, as other programs for such tokens take them.

        A byte is written as the character that stands for it, the end of a word as ``</w>``.
        """
        symbols = list(_byte_symbols().values())
        merges = [(left, right) for left, right in _read_merges(MASK_ID - 2 * len(symbols))]
        tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges), MASK, START, END]
        return {token: id_ for id_, token in enumerate(tokens)}, merges

    def _split(self, word: str) -> list[int]:
        """Apply the merges to one word: always the earliest learned, everywhere in the word, until none fits."""
        ids = [self._byte_ids[byte] for byte in word.encode()]
        ids[-1] += 256
        merges = self._merges
        while len(ids) > 1:
            # Merged ids grow in the order of learning, so the smallest is the earliest.
            best = min(merges.get(pair, VOCAB_SIZE) for pair in itertools.pairwise(ids))
            if best == VOCAB_SIZE:
                break
            merged: list[int] = []
            for id_ in ids:
                if merged and merges.get((merged[-1], id_)) == best:
                    merged[-1] = best
                else:
                    merged.append(id_)
            ids = merged
        return ids


@functools.cache
def shared_tokenizer() -> ClipTokenizer:
    """One tokenizer for all that a program tokenises: making one takes a quarter of a second."""
    return ClipTokenizer()


def _byte_symbols() -> dict[int, str]:
    """The printable character that stands for each byte in the file of merges, in the order of their ids."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


def _read_merges(count: int) -> list[list[str]]:
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the tokenizer takes its merges from the package open_clip_torch: it is not installed")
    path = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        next(file)  # a version line
        return [next(file).split() for _ in range(count)]
