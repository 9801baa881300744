"""The index of a folder of photos: one feature per photo, kept on disk; an update encodes only what has changed.

An index is a folder of two files:

- ``photos.sqlite``: the row of every photo, by its path, with the size and modification time that the file had; and
  what the features depend on (checkpoint, sizes, precision);
- ``vectors-N.f32``: the rows, (R, D) little-endian float32 of length 1. New rows are only ever appended.

Rows reach the disk before the transaction that names them, so an index killed at any moment is incomplete but never
wrong. Rows without a photo are skipped; once there are many, the others are copied to the next N.
Reading an index cannot run code.

Shape letters: R rows of the file, N photos, B batch, D embedding.
"""

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR, SQLITE_PERM, SQLITE_READONLY
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from utils import UserError
from utils.files import held
from utils.log import hide_bar

log = logging.getLogger("descry")

Stamp = tuple[int, int]
"""size in bytes and modification time in ns"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS photos (
    name BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, row INTEGER NOT NULL UNIQUE
) WITHOUT ROWID;
"""
_FIRST_ROWS = "INSERT OR IGNORE INTO about VALUES ('made by', ?), ('generation', '0')"
_NOT_DAMAGE = (SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR, SQLITE_PERM, SQLITE_READONLY)
"""errors of the disk or of other processes, which say nothing about the index"""
_COMMIT_ROWS, _COMMIT_SECONDS = 2048, 5.0
_ROWS_AT_ONCE = 1 << 16
_WAIT = "wait for it, or search the index as it is with --no_update"
_DEAD_SHARE = 0.1
"""share of rows without a photo above which the file is rewritten"""


def index_folder(root: Path, gallery: Path, about: Mapping[str, Any]) -> Path:
    """Where below ``root`` the index of a gallery is; other weights or settings have another folder."""
    gallery = gallery.resolve()
    key = hashlib.sha256(json.dumps([os.fsdecode(gallery), dict(about)], sort_keys=True).encode()).hexdigest()
    return root / f"{gallery.name}-{key[:16]}"


def row_slices(count: int) -> Iterator[slice]:
    """Slices of as many rows as should be in memory at once."""
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, count, _ROWS_AT_ONCE))


class EncodedPhotos(NamedTuple):
    """A batch of photos after encoding."""

    names: list[str]
    vectors_BD: np.ndarray
    """float32 of length 1, one row per name"""
    faults: dict[str, str]
    """photos of the batch that cannot be read, with the reasons"""


class IndexedPhotos(NamedTuple):
    """What an index held when it was read; later updates do not change it."""

    names: list[str]
    """(N,) paths below the gallery"""
    vectors_ND: np.ndarray
    """float32 of length 1; memory-mapped if every row of the file has a photo"""
    row_N: np.ndarray
    """the row of each photo in the file, ascending"""
    generation: int
    """the N of ``vectors-N.f32``"""


class GalleryIndex:
    """The index in one folder, which need not exist before :meth:`update`."""

    def __init__(self, folder: Path, about: Mapping[str, Any], dim: int) -> None:
        """Name an index with D = ``dim``; nothing is read or written yet.

        ``about`` is what the features depend on, in values that json can write; any other index is refused.
        """
        self.folder, self.dim = folder, dim
        self._about = json.dumps({**about, "dim": dim}, sort_keys=True)
        self._database = folder / "photos.sqlite"

    def update(
        self, stamps: Mapping[str, Stamp], encode: Callable[[Sequence[str]], Iterable[EncodedPhotos]]
    ) -> dict[str, str]:
        """Encode photos that are new or have changed and forget those that are gone; without any, nothing is written.

        Work is saved every few seconds. ``stamps`` are those of
        every photo in the folder; ``encode`` takes names and yields their features in batches of any size. Returns the
        photos that cannot be read, with the reasons; the next update tries them again.

        Raises:
            UserError: the index is damaged, cannot be written, or is being updated by another process.
        """
        todo, outdated = self.changes(stamps)
        log.info("index %s: %d photos to encode, %d changed or gone", self.folder, len(todo), len(outdated))
        if not todo and not outdated:
            return {}
        try:
            with held(self.folder, f"--index_dir: the index {self.folder}", _WAIT):
                todo, outdated = self.changes(stamps)  # again: another process may have done the work meanwhile
                with self._open(write=True) as (db, _):
                    db.executemany("DELETE FROM photos WHERE name = ?", [(os.fsencode(name),) for name in outdated])
                faults = self._add(encode(todo), len(todo), stamps) if todo else {}
                self._compact()
                return faults
        except KeyboardInterrupt:
            log.warning("indexing stopped: finished photos are kept; run the same command again to resume")
            raise
        except UserError:
            raise
        except OSError as error:
            raise UserError(
                f"--index_dir: cannot write {self.folder} ({error.strerror or error}); choose another folder"
            ) from None

    def changes(self, stamps: Mapping[str, Stamp]) -> tuple[list[str], list[str]]:
        """Photos that are new or have changed, and photos of the index that have changed or are gone."""
        with self._open() as (db, _):
            rows = db.execute("SELECT name, size, mtime FROM photos")
            known = {os.fsdecode(name): (size, mtime) for name, size, mtime in rows}
        todo = [name for name, stamp in stamps.items() if known.get(name) != stamp]
        return todo, [name for name, stamp in known.items() if stamps.get(name) != stamp]

    def read(self) -> IndexedPhotos:
        """All photos of the index.

        Raises:
            UserError: the index is damaged.
        """
        with self._open() as (db, generation):
            found = db.execute("SELECT name, row FROM photos ORDER BY row").fetchall()
            path, rows = self._vectors(generation)
            mapped_RD = np.memmap(path, "<f4", "r", shape=(rows, self.dim)) if rows else np.empty((0, self.dim), "<f4")
        try:
            names = [os.fsdecode(name) for name, _ in found]
            row_N = np.fromiter((row for _, row in found), np.int64, len(found))
        except (TypeError, ValueError, OverflowError) as error:
            raise self._damaged(error) from None
        if len(row_N) and not 0 <= row_N[0] <= row_N[-1] < rows:
            raise self._damaged(f"{path.name} is truncated")
        vectors_ND = mapped_RD if len(row_N) == rows else np.asarray(mapped_RD[row_N])
        for rows_B in row_slices(len(row_N)):
            squared_B = np.einsum("bd,bd->b", vectors_ND[rows_B], vectors_ND[rows_B])
            if not np.abs(squared_B - 1).max() < 1e-2:  # so that NaN fails, too
                raise self._damaged(f"{path.name} contains features that are not of length 1")
        return IndexedPhotos(names, vectors_ND, row_N, generation)

    def _vectors(self, generation: int) -> tuple[Path, int]:
        """A file of vectors, and how many rows it holds."""
        path = self.folder / f"vectors-{generation}.f32"
        return path, path.stat().st_size // (4 * self.dim) if path.exists() else 0

    def _damaged(self, reason: object) -> UserError:
        return UserError(f"{self.folder}: the index is damaged ({reason}); delete this folder and search again")

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[tuple[sqlite3.Connection, int]]:
        """A transaction and the generation; for reading, an index that does not exist is an empty one in memory."""
        create = write or not self._database.exists()
        # Not "ro" for reading, because what a killed process left half done must be rolled back first. If the file is
        # not writable, "rw" opens it read-only.
        mode = "rwc" if write else "memory" if create else "rw"
        try:
            with closing(sqlite3.connect(f"{self._database.absolute().as_uri()}?mode={mode}", uri=True)) as db:
                db.execute("PRAGMA trusted_schema = OFF")
                if create:
                    db.executescript(_SCHEMA)
                with db:
                    db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                    if create:
                        db.execute(_FIRST_ROWS, [self._about])
                    about = dict(db.execute("SELECT key, value FROM about"))
                    made_by, generation = about.get("made by", "nothing"), str(about.get("generation"))
                    if made_by != self._about:
                        raise self._damaged(f"made by {made_by}, expected {self._about}")
                    if not generation.isdecimal():
                        raise self._damaged("it does not name its file of vectors")
                    yield db, int(generation)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_DAMAGE:
                raise OSError(f"{self._database}: {error}") from None
            raise self._damaged(error) from None

    def _add(self, batches: Iterable[EncodedPhotos], total: int, stamps: Mapping[str, Stamp]) -> dict[str, str]:
        faults: dict[str, str] = {}
        waiting: list[str] = []
        with self._open(write=True) as (_, generation):
            path, next_row = self._vectors(generation)
        bar = tqdm(desc="indexing", total=total, unit=" photos", disable=hide_bar())
        with bar, path.open("ab") as vectors:
            vectors.truncate(next_row * 4 * self.dim)

            def commit() -> None:
                nonlocal next_row
                vectors.flush()
                os.fsync(vectors.fileno())
                with self._open(write=True) as (db, _):
                    rows = [(os.fsencode(name), *stamps[name], row) for row, name in enumerate(waiting, next_row)]
                    db.executemany("INSERT INTO photos VALUES (?, ?, ?, ?)", rows)
                next_row += len(waiting)
                waiting.clear()

            last = time.monotonic()
            try:
                for names, vectors_BD, unreadable in batches:
                    if not np.isfinite(vectors_BD).all():
                        raise UserError("the checkpoint gives features that are not finite; its training has diverged")
                    if len(vectors_BD) and not vectors_BD.any(axis=1).all():
                        raise UserError("the checkpoint gives features that are zero; search with another one")
                    vectors.write(vectors_BD.astype("<f4").tobytes())
                    waiting += names
                    faults |= unreadable
                    bar.update(len(names) + len(unreadable))
                    if len(waiting) >= _COMMIT_ROWS or time.monotonic() - last > _COMMIT_SECONDS:
                        commit()
                        last = time.monotonic()
            finally:
                commit()
        return faults

    def _compact(self) -> None:
        """Copy the rows that have a photo to the next file, if too many have none."""
        photos = self.read()
        old, rows = self._vectors(photos.generation)
        if rows - len(photos.names) <= _DEAD_SHARE * rows:
            return
        with self._vectors(photos.generation + 1)[0].open("wb") as file:
            for rows_B in row_slices(len(photos.names)):
                file.write(photos.vectors_ND[rows_B].tobytes())
            file.flush()
            os.fsync(file.fileno())
        with self._open(write=True) as (db, _):
            # In ascending order, so that no two photos share a row on the way.
            db.executemany("UPDATE photos SET row = ? WHERE row = ?", enumerate(photos.row_N.tolist()))
            db.execute("UPDATE about SET value = ? WHERE key = 'generation'", [str(photos.generation + 1)])
        old.unlink()
