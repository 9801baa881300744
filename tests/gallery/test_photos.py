"""Photos of a folder: which count, and what becomes of broken ones."""

import os
from pathlib import Path

import numpy as np
import pytest

from datasets.images.decode import load_resized
from gallery.photos import find_photos, photo_batches
from tests.helpers.colours import paint


def test_photos_are_found_in_all_folders_and_nothing_else(tmp_path: Path):
    gallery = tmp_path / "gallery"
    for name in ("b.jpg", "a/c.PNG", "a/d/e.webp", ".hidden/f.jpg", "a/.g.jpg", "._b.jpg"):
        paint(gallery / name, "red")
    (gallery / "notes.txt").write_text("no photo")
    (gallery / "folder.jpg").mkdir()
    paint(tmp_path / "secret.jpg", "blue")
    (gallery / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (gallery / "linked").symlink_to(tmp_path)
    os.mkfifo(gallery / "pipe.jpg")
    found = find_photos(gallery)
    assert list(found.stamps) == ["a/c.PNG", "a/d/e.webp", "b.jpg"]
    assert (found.links, found.others) == (2, 4)
    status = (gallery / "b.jpg").stat()
    assert found.stamps["b.jpg"] == (status.st_size, status.st_mtime_ns)


def test_a_gallery_may_be_reached_by_a_link_and_have_names_that_are_not_utf8(tmp_path: Path):
    paint(tmp_path / "real" / os.fsdecode(b"caf\xe9.jpg"), "red")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (name,) = find_photos(tmp_path / "link").stamps
    assert os.fsencode(name) == b"caf\xe9.jpg"


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_no_gallery(tmp_path: Path, kind: str):
    if kind == "file":
        (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"--gallery .*{kind}: no"):
        find_photos(tmp_path / kind)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_keep_the_order_and_set_broken_photos_aside(tmp_path: Path, workers: int):
    names = [f"{number:03d}.png" for number in range(150)]
    for number, name in enumerate(names):
        paint(tmp_path / name, ("red", "green", "blue")[number % 3])
    (tmp_path / "007.png").write_bytes(b"")
    (tmp_path / "008.png").unlink()
    batches = list(photo_batches(names, tmp_path, (8, 4), 4, workers))
    assert [name for batch in batches for name in batch.names] == [n for n in names if n not in ("007.png", "008.png")]
    faults = {name: reason for batch in batches for name, reason in batch.faults.items()}
    assert faults == {
        "007.png": f"{tmp_path}/007.png: the file is empty",
        "008.png": f"{tmp_path}/008.png: no such file",
    }
    for batch in batches:
        for name, pixels in zip(batch.names, batch.pixels_BCHW, strict=True):
            assert np.array_equal(pixels.numpy(), load_resized(tmp_path / name, (8, 4)))


def test_a_batch_of_broken_photos_only(tmp_path: Path):
    (batch,) = photo_batches(["x.jpg"], tmp_path, (8, 4), 4, 0)
    assert batch.names == [] and batch.pixels_BCHW.shape == (0, 3, 8, 4)
