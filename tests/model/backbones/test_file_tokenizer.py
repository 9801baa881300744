"""Tokenizers from files; against open_clip's own in tests/integration/test_open_clip.py."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from datasets.captions import AugmentOptions, WordDeletion, hide_tokens, mask_tokens, words_in
from model.backbones.architecture import OPENAI, read_architecture
from model.backbones.clip_tokenizer import shared_tokenizer
from model.backbones.file_tokenizer import FileTokenizer, tokenizer_of
from model.backbones.spec import BackboneOptions
from tests.helpers.tokenizer import VOCABULARY, write_tokenizer
from utils import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer.json")


def test_special_tokens_and_padding(path: Path):
    tokenizer = FileTokenizer(path, canonical=True)
    special = (tokenizer.start_id, tokenizer.pad_id, tokenizer.end_id, tokenizer.mask_id)
    assert special == (None, 0, 1, 4)
    ids, lengths = tokenizer(["A red COAT!", "a man " * 9], 6)
    assert ids[0, 3:].tolist() == [1, 0, 0] and ids[1, 5] == 1
    assert lengths.tolist() == [4, 6]
    assert not tokenizer.is_word_V[:5].any() and tokenizer.is_word_V[5:].all()
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a man") == tokenizer.encode("a man")
    padded = FileTokenizer(path, canonical=True, pads_with_end=True)(["a red coat"], 6)
    assert padded.ids[0, 3:].tolist() == [1, 1, 1] and padded.lengths.tolist() == [4]
    with pytest.raises(UserError, match="--text_length 0: start and end alone take 1 tokens"):
        tokenizer("a", 0)


def test_what_happens_to_training_captions(path: Path):
    tokenizer = FileTokenizer(path, canonical=True)
    (row,), (length,) = (each.numpy() for each in tokenizer(["a man in a red coat"], 10))
    words = words_in(row, length, tokenizer)
    assert words.tolist() == [position < length - 1 for position in range(10)]
    for seed in range(30):
        rng = np.random.default_rng(seed)
        hidden = hide_tokens(row, words, tokenizer, rng)
        assert hidden[0] == tokenizer.mask_id and (hidden[length - 1 :] == row[length - 1 :]).all()
        masked, labels = mask_tokens(row, words, tokenizer, rng, AugmentOptions(mask_probability=0.5))
        assert (labels > 0).any() and tokenizer.is_word_V[labels[labels > 0]].all()
        assert ((masked == tokenizer.mask_id) | tokenizer.is_word_V[masked])[: length - 1].all()
        short, count = WordDeletion(tokenizer, ["a man in a red coat"], 10, 0.5)(0, rng)
        assert short[count - 1] == tokenizer.end_id and (short[count:] == tokenizer.pad_id).all()
        assert 2 <= count <= length


def test_clips_masking_draws_the_words_that_it_always_drew():
    """Published runs resume bit for bit: choosing among ids from 1 on, as before there were other tokenizers."""
    tokenizer = shared_tokenizer()
    drawn = tokenizer.word_ids[np.random.default_rng(3).integers(0, len(tokenizer.word_ids), 500)]
    assert (drawn == np.random.default_rng(3).integers(1, tokenizer.mask_id, 500)).all()


def test_files_that_do_not_do(path: Path, tmp_path: Path):
    content = json.loads(path.read_text())
    for change, message in (
        ({"post_processor": None}, "adds 0 tokens to a text; expected an end token"),
        ({"model": {"type": "Unigram", "vocab": 3}}, "not a tokenizer.json"),
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(UserError, match=message):
            FileTokenizer(path, canonical=True)
    path.write_text(json.dumps(content).replace("<pad>", "<nothing>"))
    with pytest.raises(UserError, match="has no padding token, neither declared nor one of <pad>"):
        FileTokenizer(path, canonical=True)
    with pytest.raises(UserError, match="none.json: no such file"):
        FileTokenizer(tmp_path / "none.json", canonical=True)
    with pytest.raises(UserError, match="tokenizer .*: not a file"):
        FileTokenizer(tmp_path, canonical=True)


def test_which_towers_want_one(path: Path):
    siglip = read_architecture("ViT-B-16-SigLIP2")
    with pytest.raises(
        UserError, match="--tokenizer: ViT-B-16-SigLIP2 has a tokenizer of its own; .*timm/ViT-B-16-Sig"
    ):
        tokenizer_of(siglip, BackboneOptions(), VOCABULARY)
    with pytest.raises(UserError, match="entries, the text tower only 9; it belongs to other weights"):
        tokenizer_of(siglip, BackboneOptions(tokenizer=path), 9)
    with pytest.raises(UserError, match="OpenAI's CLIP uses CLIP's own tokenizer; leave the flag out"):
        tokenizer_of(OPENAI, BackboneOptions(tokenizer=path), VOCABULARY)
    assert tokenizer_of(OPENAI, BackboneOptions(), 49408) is shared_tokenizer()
