"""A small tokenizer file."""

from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

VOCABULARY = 80
"""entries that a text tower needs for it, and a few more"""
WORDS = [
    "a",
    "an",
    "the",
    "man",
    "woman",
    "person",
    "wears",
    "in",
    "with",
    "and",
    "red",
    "blue",
    "black",
    "white",
    "coat",
    "jacket",
    "jeans",
    "shoes",
    "bag",
    "hat",
    "long",
]


def write_tokenizer(path: Path, mask: bool = True) -> Path:
    """A small tokenizer.json in the form of SigLIP 2's: pieces that may begin with a blank, an end token, no start."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(["<mask>"] if mask else [])]
    pieces = [*special, "\u2581", *(f"\u2581{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz", "er", "ing"]
    vocabulary = {piece: id_ for id_, piece in enumerate(dict.fromkeys(pieces))}
    model = models.Unigram([(piece, -float(id_)) for piece, id_ in vocabulary.items()], unk_id=3)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(path))
    return path
