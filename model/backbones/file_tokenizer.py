"""Tokenizers of backbones that do not use CLIP's: read from a ``tokenizer.json``, the format of Hugging Face."""

import html
import string
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

import ftfy
import numpy as np
import tokenizers

from model.backbones.architecture import Architecture
from model.backbones.clip_tokenizer import shared_tokenizer
from model.backbones.spec import BackboneOptions
from model.backbones.text_cleaning import CleanedTokenizer
from utils import UserError
from utils.files import first_line
from utils.inputs import Tokenizer

_MASKS = ("<mask>", "[MASK]", "<|mask|>")
_PADS = ("<pad>", "[PAD]", "<|pad|>")
_DELETED = str.maketrans("", "", string.punctuation)


def tokenizer_of(architecture: Architecture, options: BackboneOptions, vocab_size: int) -> Tokenizer:
    """CLIP's tokenizer, or that of ``--tokenizer`` for towers trained with another one; it cleans if asked to.

    Raises:
        UserError: the flag is missing or not for these towers, or the file does not fit them.
    """
    tokenizer = _plain_tokenizer(architecture, options, vocab_size)
    return CleanedTokenizer(tokenizer) if options.clean_text else tokenizer


def _plain_tokenizer(architecture: Architecture, options: BackboneOptions, vocab_size: int) -> Tokenizer:
    path = options.tokenizer
    if architecture.tokenizer_name is None:
        if path is not None:
            raise UserError(f"--tokenizer {path}: {architecture.name} uses CLIP's own tokenizer; leave the flag out")
        return shared_tokenizer()
    if path is None:
        raise UserError(
            f"--tokenizer: {architecture.name} has a tokenizer of its own; give the tokenizer.json that is published "
            f"as {architecture.tokenizer_name}"
        )
    tokenizer = FileTokenizer(path, architecture.canonical_text, architecture.pads_with_end)
    if (count := len(tokenizer.is_word_V)) > vocab_size:
        raise UserError(
            f"--tokenizer {path}: has {count} entries, the text tower only {vocab_size}; it belongs to other weights"
        )
    return tokenizer


class FileTokenizer(Tokenizer):
    """Any tokenizer that the ``tokenizers`` library reads and that ends a text with an end token of its own."""

    def __init__(self, path: Path, canonical: bool, pads_with_end: bool = False) -> None:
        """
        Args:
            path: tokenizer.json.
            canonical: remove punctuation and capitals first, as SigLIP does.
            pads_with_end: captions are padded with the end token, whatever the file says.

        Raises:
            UserError: the file cannot be read, or it lacks an end or padding token.
        """
        self._canonical = canonical
        if not path.is_file():
            raise UserError(f"--tokenizer {path}: {'not a file' if path.exists() else 'no such file'}")
        try:
            self._read = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise UserError(f"--tokenizer {path}: not a tokenizer.json ({first_line(error)[:200]})") from None
        padding = self._read.padding
        self._read.no_truncation()
        self._read.no_padding()
        added = self._read.encode("").ids
        if len(added) not in (1, 2):
            raise UserError(
                f"--tokenizer {path}: adds {len(added)} tokens to a text; expected an end token, with or without a "
                "start token (its post_processor adds them)"
            )
        self.start_id = added[0] if len(added) == 2 else None
        self.end_id = added[-1]
        self.mask_id = self._first_of(_MASKS)
        declared = self._first_of(_PADS) if padding is None else padding["pad_id"]
        pad_id = self.end_id if pads_with_end else declared
        if pad_id is None:
            raise UserError(f"--tokenizer {path}: has no padding token, neither declared nor one of {', '.join(_PADS)}")
        self.pad_id = pad_id
        self.is_word_V = np.ones(1 + max(self._read.get_vocab().values()), dtype=bool)
        special = {id_ for id_, token in self._read.get_added_tokens_decoder().items() if token.special}
        self.is_word_V[[0, self.pad_id, self.end_id, *special]] = False  # 0 labels what masking left alone

    def _first_of(self, names: Iterable[str]) -> int | None:
        return next((id_ for name in names if (id_ := self._read.token_to_id(name)) is not None), None)

    def clean(self, text: str) -> str:
        """Repair encoding and HTML entities, collapse white space; SigLIP also drops punctuation and capitals."""
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        if self._canonical:
            text = text.replace("_", " ").translate(_DELETED).lower()
        return " ".join(text.split())

    def as_json(self) -> tuple[str, bool]:
        """The content of the file, without truncation and padding, and whether :meth:`clean` drops punctuation."""
        return self._read.to_str(), self._canonical

    def encode(self, text: str) -> list[int]:
        """Ids of a caption of any length, without start and end."""
        return self._read.encode(self.clean(text), add_special_tokens=False).ids

    def words(self, text: str) -> list[list[int]]:
        """Ids of every word (what blanks separate once the text is clean); one after the other they are the text's.

        A token belongs to the word in which it ends: a blank may be its first character.
        """
        text = self.clean(text)
        encoding = self._read.encode(text, add_special_tokens=False)
        words: list[list[int]] = [[] for _ in text.split(" ")]
        for id_, (_, end) in zip(encoding.ids, encoding.offsets, strict=True):
            words[text.count(" ", 0, end)].append(id_)
        return [word for word in words if word]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first end token; start tokens are dropped."""
        before_end = takewhile(lambda id_: id_ != self.end_id, ids)
        return self._read.decode([id_ for id_ in before_end if id_ != self.start_id], skip_special_tokens=False)
