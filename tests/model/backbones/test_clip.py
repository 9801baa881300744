"""The ways weights reach CLIP, its sizes, and captions from text to feature."""

from fractions import Fraction
from pathlib import Path
from re import sub

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones import BACKBONES, load_backbone
from model.backbones.clip import CLIP, RANDOM
from model.backbones.positions import resize_positions
from model.backbones.spec import Backbone, BackboneOptions
from model.checkpoints import archives
from utils import UserError


def test_overlapping_patches():
    clip = load_backbone(BackboneOptions("tiny", (384, 128), 12))
    assert clip.sizes.grid == (31, 10)
    assert clip.spec.image_size == (384, 128)
    assert clip.encode_image(torch.zeros(1, 3, 384, 128)).tokens.shape == (1, 311, 64)


def test_position_grid_is_resized_and_the_class_position_kept():
    positions = torch.randn(1 + 14 * 14, 8)
    resized = resize_positions(positions, (24, 8))
    grid = positions[1:].T.reshape(1, 8, 14, 14)
    expected = F.interpolate(grid, (24, 8), mode="bilinear", align_corners=False)[0].flatten(1).T
    torch.testing.assert_close(resized, torch.cat([positions[:1], expected]))
    assert resize_positions(positions, (14, 14)) is positions
    with pytest.raises(UserError, match="not a square grid"):
        resize_positions(positions[:-1], (24, 8))


@torch.no_grad()
def test_captions_with_id_0_inside_keep_their_own_features():
    """They were pooled one token too early: two that differ behind that place alone had a cosine of 1."""
    clip = CLIP(RANDOM["tiny"]).eval()
    captions = ["!( red coat", "!( blue jeans", "!(", "!;", "a man !$ !$ !$ !$ in red", "a man !$ !$ !$ !$ in blue"]
    tokens = clip.tokenizer(captions, clip.spec.context_length)
    feature = F.normalize(clip.encode_text(*tokens).pooled, dim=-1)
    assert (feature @ feature.T - 2 * torch.eye(len(captions))).max() < 0.9999
    ends = tokens.ids == clip.tokenizer.end_id
    torch.testing.assert_close(clip.encode_text(*tokens).tokens[ends], clip.encode_text(*tokens).pooled)


class Archive(nn.Module):
    """Carries OpenAI's keys, as its TorchScript archives do."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for key, value in state.items():
            module = self
            *path, last = key.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, value)

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture
def openai_state() -> dict[str, Tensor]:
    """A tiny CLIP under OpenAI's names, in half precision."""
    state = CLIP(RANDOM["tiny"]).state_dict()
    names = {key: sub(r"\.in_proj\.", ".in_proj_", key.removeprefix("text.")) for key in state}
    extras = {"input_resolution": torch.tensor(224), "logit_scale": torch.tensor(4.6)}
    return {names[key]: value.half() for key, value in state.items()} | extras


@pytest.mark.parametrize("form", ["torchscript", "plain", "nested"])
def test_archives_and_state_dicts(tmp_path: Path, openai_state: dict[str, Tensor], form: str):
    state, path = openai_state, tmp_path / "clip.pt"
    if form == "torchscript":
        torch.jit.save(torch.jit.script(Archive(state)), path)
    else:
        torch.save(state if form == "plain" else {"state_dict": state}, path)
    clip = load_backbone(BackboneOptions(str(path), (64, 32)))
    assert clip.weights_file == path
    assert clip.visual.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(clip.text.ln_final.weight, state["ln_final.weight"].float())
    torch.testing.assert_close(
        clip.visual.transformer.resblocks[0].attn.in_proj.weight,
        state["visual.transformer.resblocks.0.attn.in_proj_weight"].float(),
    )
    assert clip.visual.positional_embedding.shape == (4 * 2 + 1, 64)


def test_weights_that_are_not_clip(tmp_path: Path, openai_state: dict[str, Tensor]):
    path = tmp_path / "weights.pt"
    with pytest.raises(UserError, match="neither a file nor one of ViT-B/16, ViT-B/32"):
        load_backbone(BackboneOptions(str(path)))
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="weights.pt: "):
        load_backbone(BackboneOptions(str(path)))
    torch.save({"fc.weight": torch.ones(2, 2)}, path)
    with pytest.raises(
        UserError, match="not weights of a CLIP vision transformer, it has no weight 'visual.conv1.weight'"
    ):
        load_backbone(BackboneOptions(str(path)))
    openai_state["ln_final.bias"] = torch.zeros(5)
    torch.save(openai_state, path)
    with pytest.raises(UserError, match=r"text.ln_final.bias: \(5,\) in the file, \(64,\) in the model"):
        load_backbone(BackboneOptions(str(path)))
    torch.save({"model": Fraction(1, 2)}, path)  # of a class that torch does not trust
    with pytest.raises(UserError, match="not a checkpoint of plain tensors"):
        load_backbone(BackboneOptions(str(path)))


def test_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(archives.ARCHIVES, "Other", ("absent.pt", "0" * 64))
    monkeypatch.setattr(archives, "_OPENAI", tmp_path.as_uri())
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(UserError, match="absent.pt is not on this machine and cannot be downloaded"):
        load_backbone(BackboneOptions("Other"))


def test_a_checkpoint_without_towers_is_named():
    with pytest.raises(UserError, match="best.pth: no trained towers in it, it has no weight"):
        CLIP.from_state({"fc.weight": torch.zeros(2)}, BackboneOptions(), "best.pth")


def test_a_prefix_chooses_the_backbone(monkeypatch: pytest.MonkeyPatch):
    class Other(Backbone):
        name = "other"

        @classmethod
        def load(cls, choice: str, options: BackboneOptions) -> str:
            return f"{choice} at {options.img_size}"

    monkeypatch.setitem(BACKBONES, "other", Other)
    assert load_backbone(BackboneOptions("other:big", (64, 32))) == "big at (64, 32)"
    assert isinstance(load_backbone(BackboneOptions("clip:tiny", (64, 32))), CLIP)
    assert isinstance(load_backbone(BackboneOptions("tiny", (64, 32))), CLIP)
    with pytest.raises(UserError, match="--pretrain_choice another:big: neither a file"):
        load_backbone(BackboneOptions("another:big"))
