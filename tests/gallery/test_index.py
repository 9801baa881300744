"""The index on disk: by difference, after kills, and when somebody has damaged it."""

import logging
import os
import resource
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from gallery.index import EncodedPhotos, GalleryIndex, index_folder
from tests.helpers.colours import unit_rows
from tests.helpers.fork_server import Forked
from tests.helpers.runs import python, started
from utils import UserError
from utils.files import held

DIM = 16


def vector(name: str, stamp: tuple[int, int]) -> np.ndarray:
    """What a photo's feature is here: a function of its name and content."""
    return unit_rows(1, DIM, seed=hash((name, stamp)) % 2**32)[0]


class Gallery:
    """Names and stamps without files, and what has been encoded of them."""

    def __init__(self, count: int) -> None:
        self.stamps = {f"{number:03d}": (number + 1, 7) for number in range(count)}
        self.encoded: list[str] = []

    def encode(self, names: Sequence[str], stop_at: str = "", batch: int = 10) -> Iterator[EncodedPhotos]:
        for start in range(0, len(names), batch):
            part = list(names[start : start + batch])
            if stop_at in part:
                raise InterruptedError("stop")
            self.encoded += part
            bad = {name: f"{name}: bad" for name in part if name.startswith("bad")}
            good = [name for name in part if name not in bad]
            rows = [vector(name, self.stamps[name]) for name in good]
            yield EncodedPhotos(good, np.array(rows, np.float32).reshape(-1, DIM), bad)

    def holds(self, index: GalleryIndex) -> None:
        """The index has exactly these photos, each with its own feature."""
        photos = index.read()
        expected = [name for name in self.stamps if not name.startswith("bad")]
        assert sorted(photos.names) == sorted(expected)
        for name, row in zip(photos.names, photos.vectors_ND, strict=True):
            assert np.array_equal(row, vector(name, self.stamps[name])), name


def make(folder: Path, **about: object) -> GalleryIndex:
    return GalleryIndex(folder, {"checkpoint": "c", **about}, DIM)


def test_only_differences_are_encoded(tmp_path: Path):
    gallery, index = Gallery(50), make(tmp_path / "index")
    assert index.read().names == []
    assert index.update(gallery.stamps, gallery.encode) == {}
    gallery.holds(index)
    before = {path: path.stat().st_mtime_ns for path in index.folder.iterdir()}
    gallery.encoded.clear()
    make(tmp_path / "index").update(gallery.stamps, gallery.encode)
    assert gallery.encoded == []
    assert before == {path: path.stat().st_mtime_ns for path in index.folder.iterdir()}
    gallery.stamps |= {"new": (1, 1), "010": (999, 7), "011": (12, 999)}
    del gallery.stamps["020"]
    index.update(gallery.stamps, gallery.encode)
    assert sorted(gallery.encoded) == ["010", "011", "new"]
    gallery.holds(index)


def test_unreadable_photos_are_named_and_tried_again(tmp_path: Path):
    gallery, index = Gallery(5), make(tmp_path / "index")
    gallery.stamps["bad"] = (1, 1)
    for _ in range(2):
        assert index.update(gallery.stamps, gallery.encode) == {"bad": "bad: bad"}
    gallery.holds(index)
    gallery.stamps = {"bad2": (1, 1)}
    assert list(index.update(gallery.stamps, gallery.encode)) == ["bad2"]
    gallery.holds(index)


def test_a_photo_that_breaks_is_forgotten(tmp_path: Path):
    gallery, index = Gallery(5), make(tmp_path / "index")
    index.update(gallery.stamps, gallery.encode)
    gallery.stamps["003"] = (8, 8)
    index.update(
        gallery.stamps, lambda names: iter([EncodedPhotos([], np.empty((0, 0), np.float32), {"003": "broken"})])
    )
    assert "003" not in index.read().names


def test_interrupted_work_is_kept_and_rows_stay_with_their_names(tmp_path: Path):
    gallery, index = Gallery(50), make(tmp_path / "index")
    with pytest.raises(ValueError, match="cannot write"):  # any error of the system ends in advice
        index.update(gallery.stamps, lambda names: gallery.encode(names, stop_at="037"))
    assert len(index.read().names) == 30
    with (index.folder / "vectors-0.f32").open("ab") as file:  # what a kill can leave: rows without names, half a row
        file.write(unit_rows(3, DIM).tobytes() + b"half")
    gallery.encoded.clear()
    index.update(gallery.stamps, gallery.encode)
    assert len(gallery.encoded) == 20
    gallery.holds(index)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import gallery.index as module

def encode(names):
    for start in range(0, len(names), 10):
        if start >= int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        part = list(names[start : start + 10])
        yield module.EncodedPhotos(part, np.eye(100, dtype=np.float32)[[int(name) for name in part]], {})

module._COMMIT_ROWS = 20
module.GalleryIndex(Path(sys.argv[1]), {}, 100).update({f"{number:03d}": (1, 1) for number in range(100)}, encode)
"""


def run_killed(folder: Path, after: int) -> Forked:
    return started("-c", KILLED, folder, after)


def test_killed_indexing_continues_and_a_second_process_is_refused(tmp_path: Path):
    names = [f"{number:03d}" for number in range(100)]
    assert run_killed(tmp_path, 50).wait() == -signal.SIGKILL
    index = GalleryIndex(tmp_path, {}, 100)
    assert index.read().names == names[:40]
    with held(tmp_path, "", ""):
        second = python("-c", KILLED, tmp_path, 1000)
    assert f"--index_dir: the index {tmp_path}: process {os.getpid()} on" in second.stderr
    assert "search the index as it is with --no_update" in second.stderr
    assert run_killed(tmp_path, 1000).wait() == 0
    photos = index.read()
    assert photos.names == names  # 40 rows more would be there if the work had been done twice
    assert np.array_equal(photos.vectors_ND, np.eye(100))
    assert photos.row_N[-1] < 110


def test_a_file_with_many_empty_rows_is_written_anew_and_old_readers_keep_theirs(tmp_path: Path):
    gallery, index = Gallery(100), make(tmp_path)
    index.update(gallery.stamps, gallery.encode)
    old = index.read()
    everything, gallery.stamps = gallery.stamps, {n: s for n, s in gallery.stamps.items() if int(n) % 3 == 0}
    index.update(gallery.stamps, gallery.encode)
    assert index.read().generation == 1
    assert [path.name for path in tmp_path.glob("vectors-*")] == ["vectors-1.f32"]
    assert (tmp_path / "vectors-1.f32").stat().st_size == len(gallery.stamps) * DIM * 4
    gallery.holds(index)
    for name, row in zip(old.names, old.vectors_ND, strict=True):
        assert np.array_equal(row, vector(name, everything[name]))
    gallery.stamps["new"] = (3, 3)
    index.update(gallery.stamps, gallery.encode)
    gallery.holds(index)


def test_nothing_left(tmp_path: Path):
    gallery, index = Gallery(5), make(tmp_path)
    index.update(gallery.stamps, gallery.encode)
    index.update({}, gallery.encode)
    assert index.read().names == []
    index.update(gallery.stamps, gallery.encode)
    gallery.holds(index)


def test_other_weights_have_another_index(tmp_path: Path):
    folders = {
        index_folder(tmp_path, tmp_path / gallery, about)
        for gallery in ("a", "b")
        for about in ({"sha256": "1"}, {"sha256": "2"}, {"sha256": "1", "precision": "bfloat16"})
    }
    assert len(folders) == 6
    assert len({index_folder(tmp_path, tmp_path / name, {"x": 1}) for name in ("a", "b/../a", "./a")}) == 1
    gallery = Gallery(5)
    make(tmp_path / "index").update(gallery.stamps, gallery.encode)
    other = make(tmp_path / "index", checkpoint="d")
    for use in (other.read, lambda: other.update(gallery.stamps, gallery.encode)):
        with pytest.raises(ValueError, match=r"the index is damaged \(made by"):
            use()


def sql(folder: Path, command: str, *values: object) -> None:
    with sqlite3.connect(folder / "photos.sqlite") as db:
        db.execute(command, values)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "photos.sqlite").write_bytes(os.urandom(5000)),
        lambda folder: (folder / "photos.sqlite").write_bytes((folder / "photos.sqlite").read_bytes()[:3000]),
        lambda folder: sql(folder, "DROP TABLE photos"),
        lambda folder: sql(folder, "UPDATE photos SET row = 10000000 WHERE row = 3"),
        lambda folder: sql(folder, "UPDATE photos SET row = -1 WHERE row = 3"),
        lambda folder: sql(folder, "UPDATE about SET value = '../x' WHERE key = 'generation'"),
        lambda folder: sql(folder, "UPDATE photos SET row = 'three' WHERE row = 3"),
        lambda folder: os.truncate(folder / "vectors-0.f32", 100),
        lambda folder: (folder / "vectors-0.f32").unlink(),
        lambda folder: (folder / "vectors-0.f32").write_bytes(bytes(50 * DIM * 4)),
        lambda folder: (folder / "vectors-0.f32").write_bytes(np.full(50 * DIM, np.nan, "<f4").tobytes()),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: object):
    gallery, index = Gallery(50), make(tmp_path)
    index.update(gallery.stamps, gallery.encode)
    damage(tmp_path)
    with pytest.raises(ValueError, match="the index is damaged .*delete this folder"):
        index.read()


def test_a_disk_in_trouble_is_not_a_damaged_index(tmp_path: Path):
    (tmp_path / "photos.sqlite").mkdir()
    with pytest.raises(OSError, match="photos.sqlite: unable to open"):
        make(tmp_path).read()


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("descry"), "propagate", True)
    gallery, index = Gallery(50), make(tmp_path)

    def encode(names: Sequence[str]) -> Iterator[EncodedPhotos]:
        for number, batch in enumerate(gallery.encode(names)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        index.update(gallery.stamps, encode)
    assert "run the same command again to resume" in caplog.text
    assert len(index.read().names) == 20


def test_features_that_are_not_finite_are_refused(tmp_path: Path):
    index = make(tmp_path)
    broken = EncodedPhotos(["a"], np.full((1, DIM), np.nan, np.float32), {})
    with pytest.raises(ValueError, match="not finite"):
        index.update({"a": (1, 1)}, lambda names: iter([broken]))
    assert index.read().names == []


def test_names_of_any_bytes(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9\n'; DROP TABLE photos; --.jpg")
    index = make(tmp_path)
    index.update({name: (1, 1)}, lambda names: iter([EncodedPhotos([name], unit_rows(1, DIM), {})]))
    assert index.read().names == [name]
    assert not any(index.changes({name: (1, 1)}))


def test_a_signal_keeps_finished_photos_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    gallery, index = Gallery(50), make(tmp_path / "index")

    def encode(names: Sequence[str]) -> Iterator[EncodedPhotos]:
        yield from gallery.encode(names[:20])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.update(gallery.stamps, encode)
    assert "finished photos are kept" in caplog.text and len(index.read().names) == 20
    assert not (index.folder / ".lock").exists()


def test_features_of_length_zero_are_the_checkpoints_fault(tmp_path: Path):
    index = make(tmp_path)
    with pytest.raises(ValueError, match="gives features that are zero"):
        index.update({"a": (1, 1)}, lambda names: [EncodedPhotos(["a"], np.zeros((1, DIM), np.float32), {})])
    assert index.read().names == []


def test_a_disk_that_fills_while_indexing_loses_nothing(tmp_path: Path):
    """A limit on the size of files stands in for the disk."""
    gallery = Gallery(200)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    wide = GalleryIndex(tmp_path / "wide", {}, 512)
    rows = unit_rows(200, 512)

    def encode(names: Sequence[str]) -> Iterator[EncodedPhotos]:
        for name in names:
            yield EncodedPhotos([name], rows[int(name)][None], {})

    try:
        with pytest.raises(UserError, match="--index_dir: cannot write .*choose another folder"):
            wide.update(gallery.stamps, encode)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = wide.read()
    wide.update(gallery.stamps, encode)
    photos = wide.read()
    assert len(photos.names) == 200 and set(kept.names) <= set(photos.names)
    for name, row in zip(photos.names, photos.vectors_ND, strict=True):
        assert np.array_equal(row, rows[int(name)])
