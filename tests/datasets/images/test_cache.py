"""The cache holds what decoding gives, notices changes, and survives interruption."""

import logging
import os
import pickle
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from datasets.annotations import DataError
from datasets.images import cache as cache_module
from datasets.images.cache import ImageCache
from datasets.images.decode import load_resized
from tests.helpers.runs import started

SIZE = (24, 8)


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((20, 40)).save(path)


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / "imgs" / f"{number}.jpg" for number in range(70)]
    for number, path in enumerate(made):
        save(path, number)
    return made


def make(tmp_path, paths):
    return ImageCache(tmp_path / "cache", "set-train", paths, SIZE)


@pytest.mark.parametrize("workers", [0, 2])
def test_holds_what_decoding_gives(workers, tmp_path, paths, caplog):
    cache = make(tmp_path, paths)
    with caplog.at_level(logging.INFO, "descry"):
        assert cache.build(workers) == {}
    assert "decoding 70 of 70 images; 0.00 GB" in caplog.text
    again = pickle.loads(pickle.dumps(cache))
    for path in paths:
        assert np.array_equal(again.read(path), load_resized(path, SIZE))
    assert len(pickle.dumps(again)) < 20_000
    row = again.read(paths[0])
    row[:] = 0  # a copy
    assert again.read(paths[0]).any()


def test_second_build_decodes_nothing(tmp_path, paths, monkeypatch):
    make(tmp_path, paths).build(0)
    monkeypatch.setattr(cache_module, "load_resized", None)
    cache = make(tmp_path, paths)
    assert cache.build(0) == {}
    assert np.array_equal(cache.read(paths[3]), load_resized(paths[3], SIZE))


def test_changed_file_is_decoded_again_and_only_that(tmp_path, paths, caplog):
    make(tmp_path, paths).build(0)
    save(paths[5], 1000)
    os.utime(paths[6], ns=(1, 1))
    with caplog.at_level(logging.INFO, "descry"):
        cache = make(tmp_path, paths)
        cache.build(0)
    assert "decoding 2 of 70 images" in caplog.text
    assert np.array_equal(cache.read(paths[5]), load_resized(paths[5], SIZE))


def test_other_list_or_size_is_another_cache(tmp_path, paths):
    folders = {make(tmp_path, paths).folder, make(tmp_path, paths[:-1]).folder, make(tmp_path, paths[::-1]).folder}
    folders.add(ImageCache(tmp_path / "cache", "set-train", paths, (8, 24)).folder)
    assert len(folders) == 4


def test_interrupted_build_continues(tmp_path, paths, monkeypatch, caplog):
    done = []

    def interrupted(path, size, resize_filter):
        if len(done) == 45:
            raise KeyboardInterrupt
        done.append(path)
        return load_resized(path, size, resize_filter)

    monkeypatch.setattr(cache_module, "load_resized", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, paths).build(0)
    monkeypatch.undo()
    cache = make(tmp_path, paths)
    with caplog.at_level(logging.INFO, "descry"):
        cache.build(0)
    assert "decoding 38 of 70 images" in caplog.text  # the first chunk of 32 was finished
    assert all(np.array_equal(cache.read(path), load_resized(path, SIZE)) for path in paths)


SLOW_BUILD = """
import sys, time
from pathlib import Path
from datasets.images import cache
real = cache.load_resized
def slow(path, size, resize_filter):
    time.sleep(0.02)
    return real(path, size, resize_filter)
cache.load_resized = slow
cache._SYNC_EVERY = 1
folder = Path(sys.argv[1])
paths = [folder / "imgs" / f"{n}.jpg" for n in range(70)]
print("start", flush=True)
cache.ImageCache(folder / "cache", "set-train", paths, (24, 8)).build(2)
"""


def test_killed_build_leaves_no_wrong_row_and_no_process(tmp_path, paths):
    with started("-c", SLOW_BUILD, tmp_path) as child:
        assert child.stdout.readline() == "start\n"
        time.sleep(1.0)
        os.kill(child.pid, signal.SIGKILL)
    cache = make(tmp_path, paths)
    assert cache.build(0) == {}  # waits for the orphans, which hold the lock until they notice
    assert all(np.array_equal(cache.read(path), load_resized(path, SIZE)) for path in paths)


def test_cut_file_is_built_again(tmp_path, paths):
    cache = make(tmp_path, paths)
    cache.build(0)
    with (cache.folder / "pixels").open("r+b") as file:
        file.truncate(100)
    cache = make(tmp_path, paths)
    cache.build(0)
    assert np.array_equal(cache.read(paths[-1]), load_resized(paths[-1], SIZE))


def test_bad_images_are_reported_every_time(tmp_path, paths):
    paths[4].write_bytes(b"")
    paths[7].unlink()
    for _ in range(2):
        faults = make(tmp_path, paths).build(2)
        assert set(faults) == {paths[4], paths[7]}
    save(paths[4], 4)
    save(paths[7], 7)
    assert make(tmp_path, paths).build(0) == {}


def test_small_disk(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match="the disk has 0.00 GB free; choose another --cache_dir"):
        make(tmp_path, paths).build(0)


def test_disk_full_while_building(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(cache_module.os, "pwrite", lambda *_: 0)
    with pytest.raises(DataError, match="No space left on device"):
        make(tmp_path, paths).build(0)


def test_folder_that_cannot_be_made(tmp_path, paths):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="choose another --cache_dir"):
        make(tmp_path, paths).build(0)
