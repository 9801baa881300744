"""Shards and index that were damaged, changed or moved: what is said, and how it is mended."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from datasets.annotations import DataError
from datasets.images.decode import ImageError
from datasets.shards.importing import import_shards
from datasets.shards.index import ShardIndex
from datasets.shards.plan import ImportOptions
from datasets.shards.verify import rebuild_index, verify_shards
from tests.helpers.annotations import write_images


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root")
    names = write_images(root / "images", 12)
    rows = [
        {"id": n // 3, "split": "train", "file_path": name, "captions": [f"é {n}", "x"]} for n, name in enumerate(names)
    ]
    (root / "reid_raw.json").write_text(json.dumps(rows))
    import_shards(ImportOptions("auto", (root / "reid_raw.json",), root / "images", shard_size=5), root / "out", 1)
    return root / "out"


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "elsewhere"))  # moved: nothing depends on where it is


def content(index: ShardIndex) -> list[tuple[bytes, list[str], int]]:
    return [(index.image_bytes(n), index.captions_of(n), int(index.pid_N[n])) for n in range(len(index))]


def test_a_whole_folder(made, folder):
    index = ShardIndex(folder)
    assert verify_shards(index, 2) == []
    assert content(index) == content(ShardIndex(made)) == content(pickle.loads(pickle.dumps(index)))
    assert index.captions == 24 and index.identities == 4 and len(index.shards) == 3
    assert index.name(0).startswith(f"{folder / '000000.tar'}, ") and index.name(0).endswith(".jpg")


def test_an_index_is_made_again_from_the_shards(made, folder):
    shutil.rmtree(folder / "index")
    with pytest.raises(
        DataError, match=f"{folder}: has tar files, but no index; make it: python -m datasets.shards index"
    ):
        ShardIndex(folder)
    index = rebuild_index(folder, 1)
    assert content(index) == content(ShardIndex(made))
    for name in ("offset", "size", "pid", "caption_start", "text_start", "text"):
        assert (folder / "index" / name).read_bytes() == (made / "index" / name).read_bytes()
    assert verify_shards(index, 1) == []


@pytest.mark.parametrize("name", ["offset", "size", "pid", "caption_start", "text_start", "text"])
def test_a_cut_off_index_is_refused(folder, name):
    path = folder / "index" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"^{path}: has .* bytes, the index says .*; make it again"):
        ShardIndex(folder)
    path.unlink()
    with pytest.raises(DataError, match=f"^{path}: No such file"):
        ShardIndex(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 99}'])
def test_a_damaged_description_is_refused(folder, text):
    (folder / "index" / "index.json").write_text(text)
    with pytest.raises(DataError, match=r"index.json: (damaged .*|version 99, expected 1;) ?make it again"):
        ShardIndex(folder)


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(DataError, match="is no folder of shards; make one"):
        ShardIndex(tmp_path)
    with pytest.raises(DataError, match="has no tar files"):
        rebuild_index(tmp_path, 1)


def test_shards_that_are_missing_or_cut_off_are_refused_at_once(folder):
    path = folder / "000001.tar"
    data = path.read_bytes()
    path.write_bytes(data[:-512])
    with pytest.raises(DataError, match=f"^{path}: has .* bytes, the index says {len(data)}"):
        ShardIndex(folder)
    path.unlink()
    with pytest.raises(DataError, match=f"^{path}: No such file"):
        ShardIndex(folder)


def test_shards_that_change_under_a_run(folder):
    index = ShardIndex(folder)
    path = folder / index.shards[1]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match=f"^{path}: cut off before the end of image 7"):
        index.image_bytes(7)
    shutil.rmtree(folder)
    with pytest.raises(ImageError, match="000002.tar: image 11 cannot be read"):
        index.image_bytes(11)


def test_changed_shards_are_found(folder):
    index = ShardIndex(folder)
    first, second = (folder / name for name in index.shards[:2])
    data = bytearray(first.read_bytes())
    at = int(index.offset_N[1]) + int(index.size_N[1]) // 2
    data[at : at + 40] = bytes(40)  # in the middle of an image
    first.write_bytes(data)
    second.write_bytes(second.read_bytes().replace("é".encode(), b"ee"))
    (folder / "999999.tar").touch()
    faults = verify_shards(index, 1)
    assert len(faults) == 3
    assert faults[0].startswith(f"{first}: has changed since the index was made (its SHA-256 differs")
    assert faults[1].startswith(f"{second}: captions differ from those of the index (its SHA-256 differs")
    assert faults[2] == f"{folder / '999999.tar'}: is not in the index"


def test_an_index_of_other_shards_is_found(folder, made):
    index = ShardIndex(folder)
    other = made / "000002.tar"
    (folder / "000001.tar").write_bytes(other.read_bytes())
    index.about["shards"][1][2] = other.stat().st_size
    (fault,) = verify_shards(index, 1)
    assert "differs from the index from" in fault or "holds" in fault or "captions differ" in fault


def test_images_that_cannot_be_decoded_are_named(folder):
    index = ShardIndex(folder)
    path = folder / index.shards[0]
    data = bytearray(path.read_bytes())
    start = int(index.offset_N[2])
    data[start + 2 : start + 200] = bytes(198)
    path.write_bytes(data)
    index = rebuild_index(folder, 1)
    (fault,) = verify_shards(index, 1)
    assert fault.startswith(f"{index.name(2)}: ")
