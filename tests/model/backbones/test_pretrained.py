"""Files that are not what their name says, and weights of another architecture."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.backbones import load_backbone
from model.backbones.clip import CLIP, RANDOM
from model.backbones.spec import BackboneOptions
from utils import UserError


def bytes_of(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text.encode())


WEIGHTS = {"visual.conv1.weight": torch.ones(2, 3, 4, 4)}


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.safetensors", lambda path: torch.save(WEIGHTS, path), "no safetensors file; damaged, or to be renamed"),
        ("a.pt", lambda path: save_file(WEIGHTS, path), "a safetensors file, which its name does not say"),
        ("a.bin", bytes_of("version https://git-lfs.github.com/spec/v1\noid"), "a pointer of Git LFS, not the weights"),
        ("a.safetensors", bytes_of("version https://git-lfs.github.com/spec/v1\noid"), "a pointer of Git LFS"),
        ("a.bin", bytes_of("<!DOCTYPE html><html>Not found</html>"), "a text, not weights; was a web page"),
        ("a.pt", bytes_of(""), "damaged or not a checkpoint"),
        ("a.safetensors", lambda path: path.write_bytes(b"\x10" + bytes(7) + b"{" + bytes(90)), "damaged safetensors"),
        ("a.pt", lambda path: path.mkdir(), "is not a file"),
        ("a.pt", lambda path: None, "a.pt is not there"),
        ("a.pt", lambda path: torch.save(WEIGHTS, path), "it has no weight 'visual.positional_embedding'"),
    ],
)
def test_files(tmp_path: Path, name: str, write: Callable[[Path], object], message: str):
    path = tmp_path / name
    write(path)
    with pytest.raises(UserError, match=message):
        load_backbone(BackboneOptions(f"open_clip:ViT-B-16:{path}"))


def test_weights_of_another_architecture(tmp_path: Path):
    path = tmp_path / "tiny.pt"
    torch.save(CLIP(RANDOM["tiny"]).state_dict(), path)
    for name in ("ViT-B-16", "ViT-B-16-quickgelu"):
        with pytest.raises(
            UserError, match=f"weights of another architecture than {name}\n  embed_dim is 64 in the file"
        ):
            load_backbone(BackboneOptions(f"open_clip:{name}:{path}"))
    with pytest.raises(UserError, match="weights of another architecture than ViT-B-16-SigLIP2"):
        load_backbone(BackboneOptions(f"open_clip:ViT-B-16-SigLIP2:{path}"))
    with pytest.raises(
        UserError, match="more than one model: .* not in the file; give --pretrain_choice open_clip:NAME:"
    ):
        load_backbone(BackboneOptions(str(path)))
    with pytest.raises(UserError, match="--tokenizer t.json: OpenAI's CLIP uses CLIP's own tokenizer"):
        load_backbone(BackboneOptions(f"openai:{path}", tokenizer=Path("t.json")))
    assert isinstance(load_backbone(BackboneOptions(f"openai:{path}")), CLIP)
