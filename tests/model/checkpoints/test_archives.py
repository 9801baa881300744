"""A download is checked before it gets its name."""

import hashlib
from pathlib import Path

import pytest

from model.checkpoints.archives import download
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
