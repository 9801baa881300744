"""SigLIP's towers; against open_clip in tests/integration/test_open_clip.py."""

from pathlib import Path

import pytest
import torch

from model.backbones.architecture import read_architecture
from model.backbones.file_tokenizer import FileTokenizer
from model.backbones.siglip import SigLIP
from model.backbones.sizes import ClipSizes
from tests.helpers.tokenizer import VOCABULARY, write_tokenizer

SIZES = ClipSizes(96, (64, 32), 16, 16, 96, 2, 48, 2, VOCABULARY, 16)


@pytest.fixture
def siglip(tmp_path: Path) -> SigLIP:
    torch.manual_seed(0)
    tokenizer = FileTokenizer(write_tokenizer(tmp_path / "tokenizer.json"), canonical=True)
    return SigLIP(SIZES, read_architecture("ViT-B-16-SigLIP2"), tokenizer).eval()


@torch.no_grad()
def test_a_token_is_what_its_patch_alone_is_pooled_to(siglip: SigLIP):
    patches = torch.randn(2, 5, 96)
    tokens = siglip.visual.pool(patches)
    for position in range(5):
        alone = siglip.visual.pool(patches[:, position : position + 1])
        torch.testing.assert_close(alone[:, 0], tokens[:, 1 + position])
        torch.testing.assert_close(alone[:, 1], tokens[:, 1 + position])
    assert siglip.encode_image(torch.randn(2, 3, 64, 32)).tokens.shape == (2, 1 + 8, 96)


@torch.no_grad()
def test_a_caption_depends_on_its_padding(siglip: SigLIP):
    assert not siglip.spec.text_is_causal
    short, long = (siglip.encode_text(*siglip.tokenizer(["a red coat"], length)) for length in (8, 16))
    torch.testing.assert_close(long.pooled, long.tokens[:, -1])
    assert not torch.allclose(short.pooled, long.pooled, atol=1e-3)


def test_recomputation_changes_nothing(siglip: SigLIP):
    images = torch.randn(2, 3, 64, 32)
    gradients = []
    for keep_input_only in (False, True):
        for block in siglip.blocks():
            block.keep_input_only = keep_input_only
        siglip.zero_grad()
        siglip.encode_image(images).tokens.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in siglip.visual.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
