"""The tokenizer of a run as a ``tokenizer.json``, which the tokenizers library and all of its users read."""

import re
import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from model.backbones.clip_tokenizer import END, END_ID, MASK, START, START_ID, ClipTokenizer
from model.backbones.file_tokenizer import FileTokenizer
from model.backbones.text_cleaning import MARKS, MOST_WORDS, CleanedTokenizer
from utils import UserError, inputs

_REPLACED = {
    **{"&amp;": "&", "&quot;": '"', "&#39;": "'", "&apos;": "'", "&lt;": "<", "&gt;": ">", "&nbsp;": " "},
    **dict.fromkeys("\u2018\u2019\u201a\u201b", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
}
"""what of ftfy and HTML entities occurs in captions; in this order, for an entity may be escaped twice"""
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def tokenizer_of(ours: inputs.Tokenizer, length: int) -> Tokenizer:
    """The same ids, truncated and padded to ``length``.

    ftfy's repairs of wrongly decoded text, and rare entities, are left out: there is no such step in the library.

    Raises:
        UserError: the backbone has a tokenizer of another kind.
    """
    if isinstance(ours, CleanedTokenizer):
        if length > MOST_WORDS:
            raise UserError(
                f"--format: --clean_text keeps {MOST_WORDS} words, which no tokenizer.json of more tokens can"
            )
        tokenizer = tokenizer_of(ours.inner, length)
        entities = {old.removesuffix(";"): new for old, new in _REPLACED.items() if old.startswith("&")}
        steps = [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(MARKS), " "),  # semicolons as well, without which entities stay entities
            *(normalizers.Replace(old, new) for old, new in entities.items()),
            tokenizer.normalizer,
        ]
        tokenizer.normalizer = normalizers.Sequence(steps)
        return tokenizer
    if isinstance(ours, ClipTokenizer):
        tokenizer = _clip(ours)
    elif isinstance(ours, FileTokenizer):
        tokenizer = _of_file(ours)
    else:
        raise UserError(f"--format: {type(ours).__name__} has no tokenizer.json; use --format safetensors")
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=ours.pad_id, pad_token=tokenizer.id_to_token(ours.pad_id), length=length)
    return tokenizer


def _of_file(ours: FileTokenizer) -> Tokenizer:
    content, canonical = ours.as_json()
    tokenizer = Tokenizer.from_str(content)
    steps = [normalizers.Replace(old, new) for old, new in _REPLACED.items()]
    if canonical:
        deleted = Regex(f"[{re.escape(string.punctuation.replace('_', ''))}]")
        steps += [normalizers.Replace("_", " "), normalizers.Replace(deleted, ""), normalizers.Lowercase()]
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([*steps, *own])
    return tokenizer


def _clip(ours: ClipTokenizer) -> Tokenizer:
    vocabulary, merges = ours.vocabulary()
    model = BPE(
        vocab=vocabulary,
        merges=merges,
        unk_token=END,
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        fuse_unk=False,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(old, new) for old, new in _REPLACED.items()),
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("</w>", " "), decoders.Strip(" ", 0, 1)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (MASK, START, END)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, START_ID), (END, END_ID)]
    )
    return tokenizer
