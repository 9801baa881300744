"""A download is checked before it gets its name; weights that cannot be any are refused."""

import hashlib
from pathlib import Path

import pytest
import torch

from model.checkpoints.archives import download, state_dict_in
from utils import UserError


def test_download_is_checked(tmp_path: Path):
    content = b"weights" * 1000
    digest = hashlib.sha256(content).hexdigest()
    served = tmp_path / "served" / digest / "tiny.pt"
    served.parent.mkdir(parents=True)
    served.write_bytes(content)
    target = tmp_path / "store" / "tiny.pt"
    assert download(served.as_uri(), target, digest) == target
    assert target.read_bytes() == content
    with pytest.raises(UserError, match="damaged or another file"):
        download(served.as_uri(), tmp_path / "other.pt", "0" * 64)
    assert not (tmp_path / "other.pt").exists()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": torch.zeros(2, 3), "b": torch.zeros(3)}, "all weights are zero"),
        ({"a": torch.ones(2, 3, dtype=torch.int64), "b": torch.zeros(3)}, r"whole numbers \(a: torch.int64\)"),
    ],
)
def test_weights_that_cannot_be_any(weights: dict[str, torch.Tensor], message: str):
    with pytest.raises(UserError, match=f"x.pth: .*{message}"):
        state_dict_in({"model": weights}, Path("x.pth"))


def test_a_part_may_be_zero_or_whole():
    weights = {"lora_B": torch.zeros(2, 3), "weight": torch.ones(2, 3), "position_ids": torch.arange(4)[None]}
    assert state_dict_in(weights, Path("x.pth")) == weights
