"""Images are checked before training: what is missing or broken is refused, or left out."""

import os

import numpy as np
import pytest

from datasets.annotations import DataError
from datasets.images import verify as checks
from datasets.images.decode import load_resized
from datasets.images.source import ImageOptions
from datasets.images.verify import prepare_images, without
from datasets.records import Dataset, ImageRecord
from tests.helpers.images import photo

SIZE = (24, 8)


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / "imgs" / f"{number}.jpg" for number in range(70)]
    made[0].parent.mkdir()
    for number, path in enumerate(made):
        photo(40, 20, number).save(path)
    return made


@pytest.fixture
def dataset(paths):
    def records(part, ids):
        return tuple(ImageRecord(ids[n % len(ids)], n, path, ("A man.",)) for n, path in enumerate(part))

    return Dataset("set", records(paths[:40], range(20)), (), records(paths[40:], (90, 91, 95)))


@pytest.mark.parametrize("use_cache", [False, True])
def test_prepare_good_images(use_cache, dataset, tmp_path):
    same, images = prepare_images(dataset, SIZE, ImageOptions(cache=use_cache), tmp_path, workers=0)
    assert same is dataset
    assert (tmp_path / ".image_cache").exists() == use_cache
    for record in dataset.train + dataset.test:
        expected = load_resized(record.path, SIZE)
        assert np.array_equal(images.read(record.path), expected)
        assert np.array_equal(images.read_batch([record.path], pin_memory=False)[0].numpy(), expected)


@pytest.mark.parametrize("use_cache", [False, True])
def test_prepare_skips_and_renumbers(use_cache, dataset, tmp_path, caplog):
    dataset.train[3].path.unlink()
    dataset.train[23].path.write_bytes(b"")  # the other image of identity 3
    dataset.test[0].path.write_bytes(b"x")
    options = ImageOptions(bad_images="skip", cache=use_cache)
    kept, images = prepare_images(dataset, SIZE, options, tmp_path, workers=2)
    assert (len(kept.train), len(kept.test)) == (38, 29)
    assert sorted({r.pid for r in kept.train}) == list(range(19))
    assert [r.pid for r in kept.train[:5]] == [0, 1, 2, 3, 4]
    assert [r.image_id for r in kept.train] == list(range(38))
    assert kept.test[0].pid == 91
    assert "set train: left out 2 of 40 images" in caplog.text
    assert "1 of 20 identities have no image left; the others are renumbered" in caplog.text
    assert "the file is empty" in caplog.text
    assert images.read(kept.train[3].path).shape == (3, *SIZE)


def test_prepare_refuses(dataset, tmp_path):
    for record in dataset.train[:7]:
        record.path.unlink()
    with pytest.raises(DataError, match=r"7 images missing or undecodable: .*0\.jpg: no such file.*; and 2 more"):
        prepare_images(dataset, SIZE, ImageOptions(), tmp_path, workers=0)
    prepare_images(dataset, SIZE, ImageOptions(), tmp_path, workers=0, splits=("test",))


def test_prepare_with_cache_refuses_undecodable(dataset, tmp_path):
    dataset.test[1].path.write_bytes(b"x")
    with pytest.raises(DataError, match="1 image missing or undecodable: .*not an image"):
        prepare_images(dataset, SIZE, ImageOptions(cache=True), tmp_path, workers=0)


def test_nothing_left(dataset):
    with pytest.raises(DataError, match="set test: no image can be used"):
        without(dataset, {record.path: "gone" for record in dataset.test})


def test_file_index_lists_each_folder_once(tmp_path, paths, monkeypatch):
    calls = []
    real = os.scandir
    monkeypatch.setattr(checks.os, "scandir", lambda folder: calls.append(folder) or real(folder))
    files = checks.FileIndex()
    assert all(path in files for path in paths)
    assert tmp_path / "imgs" / "x.jpg" not in files
    assert tmp_path / "imgs" not in files  # a folder
    assert tmp_path / "nowhere" / "x.jpg" not in files
    assert len(calls) == 3
