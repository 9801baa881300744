"""The towers against open_clip_torch, and the ways weights reach them."""

import hashlib
import io
import logging
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.backbones.clip import CLIP, RANDOM, VIT_B_16, clip_names, load_clip, resize_positions, sizes_of
from model.backbones.spec import BackboneOptions
from model.checkpoints import archives
from model.checkpoints.published import our_names
from tests.helpers.golden import cases


def random_ids(rows: int, vocab: int = 49408) -> torch.Tensor:
    ids = torch.zeros(rows, 77, dtype=torch.long)
    for row in range(rows):
        length = 5 + 9 * row
        ids[row, :length] = torch.randint(1, vocab - 3, (length,))
        ids[row, 0], ids[row, length] = vocab - 2, vocab - 1
    return ids


@torch.no_grad()
def test_towers_match_open_clip():
    theirs = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None).eval()
    theirs.visual.output_tokens = True
    state = clip_names(theirs.state_dict())
    sizes = sizes_of(state)
    assert sizes == VIT_B_16
    ours = CLIP(sizes).eval()
    ours.load_state_dict({key: value for key, value in state.items() if key != "attn_mask"})
    images, ids = torch.randn(2, 3, 224, 224), random_ids(3)
    pooled, tokens = theirs.visual(images)
    encoded = ours.visual(images)
    torch.testing.assert_close(encoded.pooled, pooled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoded.pooled, encoded.tokens[:, 0])
    # open_clip projects the pooled token only; its other tokens come out of the last block as they are
    patches = (theirs.visual.ln_post(tokens) if not _normed(tokens) else tokens) @ theirs.visual.proj
    torch.testing.assert_close(encoded.tokens[:, 1:], patches, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.text(ids).pooled, theirs.encode_text(ids), atol=1e-4, rtol=1e-4)
    hidden = theirs.token_embedding(ids) + theirs.positional_embedding
    hidden = theirs.ln_final(theirs.transformer(hidden, attn_mask=theirs.attn_mask)) @ theirs.text_projection
    torch.testing.assert_close(ours.text(ids).tokens, hidden, atol=1e-4, rtol=1e-4)


def _normed(tokens: torch.Tensor) -> bool:
    return torch.allclose(tokens.mean(-1), torch.zeros(()), atol=1e-3)


def test_vit_b_16_has_the_published_number_of_parameters():
    with torch.device("meta"):
        clip = CLIP(VIT_B_16)
    assert sum(p.numel() for p in clip.parameters()) == 149_620_737 - 1  # OpenAI's, less the logit scale


@torch.no_grad()
def test_cutting_the_padding_changes_no_feature():
    text = CLIP(RANDOM["tiny"]).eval().text
    ids = random_ids(3)
    torch.testing.assert_close(text(ids[:, :24]).pooled, text(ids).pooled, atol=1e-6, rtol=1e-5)


def test_overlapping_patches():
    clip = load_clip(BackboneOptions("tiny", (384, 128), 12))
    assert clip.sizes.grid == (31, 10)
    assert clip.visual(torch.zeros(1, 3, 384, 128)).tokens.shape == (1, 311, 64)


def test_position_grid_is_resized_and_the_class_position_kept():
    positions = torch.randn(1 + 14 * 14, 8)
    resized = resize_positions(positions, (24, 8))
    grid = positions[1:].T.reshape(1, 8, 14, 14)
    expected = F.interpolate(grid, (24, 8), mode="bilinear", align_corners=False)[0].flatten(1).T
    torch.testing.assert_close(resized, torch.cat([positions[:1], expected]))
    assert resize_positions(positions, (14, 14)) is positions
    with pytest.raises(ValueError, match="not a square grid"):
        resize_positions(positions[:-1], (24, 8))


class Archive(nn.Module):
    """Carries OpenAI's keys, as its TorchScript archives do."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for key, value in state.items():
            module = self
            *path, last = key.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def openai_state() -> dict[str, torch.Tensor]:
    from re import sub

    state = CLIP(RANDOM["tiny"]).state_dict()
    names = {key: sub(r"\.in_proj\.", ".in_proj_", key.removeprefix("text.")) for key in state}
    extras = {"input_resolution": torch.tensor(224), "logit_scale": torch.tensor(4.6)}
    return {names[key]: value.half() for key, value in state.items()} | extras


@pytest.mark.parametrize("form", ["torchscript", "plain", "nested"])
def test_archives_and_state_dicts(tmp_path: Path, form: str):
    state, path = openai_state(), tmp_path / "clip.pt"
    if form == "torchscript":
        torch.jit.save(torch.jit.script(Archive(state)), path)
    else:
        torch.save(state if form == "plain" else {"state_dict": state}, path)
    clip = load_clip(BackboneOptions(str(path), (64, 32)))
    assert clip.visual.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(clip.text.ln_final.weight, state["ln_final.weight"].float())
    torch.testing.assert_close(
        clip.visual.transformer.resblocks[0].attn.in_proj.weight,
        state["visual.transformer.resblocks.0.attn.in_proj_weight"].float(),
    )
    assert clip.visual.positional_embedding.shape == (4 * 2 + 1, 64)


def test_weights_that_are_not_clip(tmp_path: Path):
    path = tmp_path / "weights.pt"
    with pytest.raises(ValueError, match="neither a file nor one of ViT-B/16, tiny"):
        load_clip(BackboneOptions(str(path)))
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="weights.pt: "):
        load_clip(BackboneOptions(str(path)))
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match="not a CLIP vision transformer, it has no weight 'visual.conv1.weight'"):
        load_clip(BackboneOptions(str(path)))
    state = openai_state()
    state["ln_final.bias"] = torch.zeros(5)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"text.ln_final.bias: \(5,\) in the file, \(64,\) in the model"):
        load_clip(BackboneOptions(str(path)))
    torch.save({"model": Exception("code")}, path)
    with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
        load_clip(BackboneOptions(str(path)))


def test_download_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    buffer = io.BytesIO()
    torch.save(openai_state(), buffer)
    served, digest = tmp_path / "served", hashlib.sha256(buffer.getvalue()).hexdigest()
    (served / digest).mkdir(parents=True)
    (served / digest / "tiny.pt").write_bytes(buffer.getvalue())
    target = tmp_path / "store" / "tiny.pt"
    url = f"{served.as_uri()}/{digest}/tiny.pt"
    assert archives.download(url, target, digest) == target
    assert target.read_bytes() == buffer.getvalue()
    with pytest.raises(ValueError, match="damaged or another file"):
        archives.download(url, tmp_path / "other.pt", "0" * 64)
    assert not (tmp_path / "other.pt").exists()
    monkeypatch.setitem(archives.ARCHIVES, "Other", ("absent.pt", digest))
    monkeypatch.setattr(archives, "_OPENAI", served.as_uri())
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(ValueError, match="absent.pt is not on this machine and cannot be downloaded"):
        load_clip(BackboneOptions("Other"))
    assert not list(tmp_path.rglob("*.part"))


def test_names_in_every_wrapping():
    state = openai_state()
    for prefix in ("base_model.", "module.base_model.", "model.base_model.", "module.", ""):
        ours, unknown = our_names({prefix + key: value for key, value in state.items()})
        assert set(ours) == {f"clip.{key}" for key in CLIP(RANDOM["tiny"]).state_dict()}, prefix
        assert all(key.endswith("input_resolution") for key in unknown)
    again, unknown = our_names({f"module.{key}": value for key, value in ours.items()})
    assert set(again) == set(ours) and not unknown


def test_golden_weights_have_a_name_of_ours(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        for case in cases("irra"):
            case.retriever()
    assert not caplog.records
