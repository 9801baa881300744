"""The index of a folder of photos: one feature per photo, kept on disk and brought up to date by difference.

An index is a folder of two files:

- ``photos.sqlite``: the row of every photo, by its path, with the size and modification time that the file had; and
  what made the rows (checkpoint, sizes, precision);
- ``vectors-N.f32``: the rows, (R, D) little-endian float32 of length 1. New rows are only ever appended.

Rows reach the disk before the transaction that gives them a name, so an index killed at any moment is incomplete but
never wrong. Rows that no photo has any more are skipped, and dropped by writing the next N once they are many.
Nothing that is read here can run code.

Shape letters: R rows of the file, N photos, B batch, D embedding.
"""

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from utils.files import locked

log = logging.getLogger("descry")

Stamp = tuple[int, int]
"""size in bytes and modification time in ns"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS photos (
    name BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, row INTEGER NOT NULL UNIQUE
) WITHOUT ROWID;
"""
_NOT_ITS_CONTENT = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PERM),
)
"""what SQLite calls errors of the disk or of other processes"""
_COMMIT_ROWS, _COMMIT_SECONDS = 2048, 5.0
_ROWS_AT_ONCE = 1 << 16
_DEAD_SHARE = 0.1
"""share of rows without a photo from which on the file is written anew"""


def index_folder(root: Path, gallery: Path, about: Mapping[str, Any]) -> Path:
    """Where below ``root`` the index of a gallery is: another folder for other weights or settings."""
    gallery = gallery.resolve()
    key = hashlib.sha256(json.dumps([os.fsdecode(gallery), dict(about)], sort_keys=True).encode()).hexdigest()
    return root / f"{gallery.name}-{key[:16]}"


class Encoded(NamedTuple):
    """Some photos of those that were asked for."""

    names: list[str]
    vectors_BD: np.ndarray
    """float32 of length 1, a row for each name"""
    faults: dict[str, str]
    """photos that cannot be read, with the reasons"""


class Photos(NamedTuple):
    """An index at one moment; later changes of its files do not touch it."""

    names: list[str]
    """(N,) paths below the gallery"""
    vectors_ND: np.ndarray
    """float32 of length 1; memory-mapped where every row of the file has a photo"""
    row_N: np.ndarray
    """where each photo is in the file"""
    generation: int
    """which of the files"""


class Change(NamedTuple):
    """How an index differs from the folder."""

    todo: list[str]
    """photos that are new or have changed"""
    outdated: list[str]
    """photos in the index that have changed or are gone"""


class GalleryIndex:
    """The index in one folder, which need not exist before :meth:`update`."""

    def __init__(self, folder: Path, about: Mapping[str, Any], dim: int) -> None:
        """``about`` says what makes the features; an index of anything else is refused.

        Args:
            folder: where the index is or will be.
            about: anything that json can write.
            dim: width D of a feature.
        """
        self.folder, self.dim = folder, dim
        self._about = json.dumps({**about, "dim": dim}, sort_keys=True)
        self._database = folder / "photos.sqlite"

    def update(
        self, stamps: Mapping[str, Stamp], encode: Callable[[Sequence[str]], Iterator[Encoded]]
    ) -> dict[str, str]:
        """Encode the photos that are new or have changed and forget those that are gone; writes only if there are any.

        Another process that updates the same index is waited for. Work done is kept at least every few seconds.

        Args:
            stamps: of every photo that there is now.
            encode: names to features, in any batches.

        Returns:
            the photos that cannot be read, with the reasons; they are tried again next time.

        Raises:
            ValueError: the index is damaged or cannot be written.
        """
        if not any(self.changes(stamps)):
            return {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "lock"):
                change = self.changes(stamps)
                self._forget(change.outdated)
                faults = self._add(change.todo, stamps, encode)
                self._compact()
                return faults
        except KeyboardInterrupt:
            log.info("interrupted: what is done is kept, the same command continues")
            raise
        except OSError as error:
            raise ValueError(
                f"--index_dir: {self.folder} cannot be written ({error.strerror or error}); choose another folder"
            ) from None

    def changes(self, stamps: Mapping[str, Stamp]) -> Change:
        """What :meth:`update` would do."""
        with self._open() as db:
            rows = db.execute("SELECT name, size, mtime FROM photos") if db else ()
            known = {os.fsdecode(name): (size, mtime) for name, size, mtime in rows}
        return Change(
            [name for name, stamp in stamps.items() if known.get(name) != stamp],
            [name for name, stamp in known.items() if stamps.get(name) != stamp],
        )

    def read(self) -> Photos:
        """All photos of the index.

        Raises:
            ValueError: the index is damaged.
        """
        with self._open() as db:
            if db is None:
                return Photos([], np.empty((0, self.dim), np.float32), np.empty(0, np.int64), 0)
            found = db.execute("SELECT name, row FROM photos ORDER BY row").fetchall()
            generation = self._generation(db)
            path = self._vectors(generation)
            rows = self._rows(path)
            mapped_RD = np.memmap(path, "<f4", "r", shape=(rows, self.dim)) if rows else np.empty((0, self.dim), "<f4")
        try:
            names = [os.fsdecode(name) for name, _ in found]
            row_N = np.fromiter((row for _, row in found), np.int64, len(found))
        except (TypeError, ValueError, OverflowError) as error:
            raise self._damaged(error) from None
        if len(row_N) and not 0 <= row_N[0] <= row_N[-1] < rows:
            raise self._damaged(f"{path.name} is cut short")
        vectors_ND = mapped_RD if len(row_N) == rows else np.asarray(mapped_RD[row_N])
        for start in range(0, len(row_N), _ROWS_AT_ONCE):
            part_BD = vectors_ND[start : start + _ROWS_AT_ONCE]
            if not np.abs(np.einsum("bd,bd->b", part_BD, part_BD) - 1).max() < 1e-2:
                raise self._damaged(f"{path.name} holds features that are not of length 1")
        return Photos(names, vectors_ND, row_N, generation)

    def _vectors(self, generation: int) -> Path:
        return self.folder / f"vectors-{generation}.f32"

    def _rows(self, path: Path) -> int:
        return path.stat().st_size // (4 * self.dim) if path.exists() else 0

    def _damaged(self, reason: object) -> ValueError:
        return ValueError(f"{self.folder}: the index is damaged ({reason}); delete this folder, and search again")

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection | None]:
        """A transaction, or None to read from where no index is."""
        if not write and not self._database.exists():
            yield None
            return
        # Not "ro" for reading: what a killed process left half done must be rolled back first. SQLite opens files that
        # may not be written for reading.
        mode = "rwc" if write else "rw"
        try:
            with closing(sqlite3.connect(f"{self._database.absolute().as_uri()}?mode={mode}", uri=True)) as db:
                db.execute("PRAGMA trusted_schema = OFF")
                if write:
                    db.executescript(_SCHEMA)
                with db:
                    db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                    if write:
                        first = "INSERT OR IGNORE INTO about VALUES ('made by', ?), ('generation', '0')"
                        db.execute(first, [self._about])
                    (about,) = db.execute("SELECT value FROM about WHERE key = 'made by'").fetchone() or ("nothing",)
                    if about != self._about:
                        raise self._damaged(f"made by {about}, expected {self._about}")
                    yield db
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_ITS_CONTENT:
                raise OSError(f"{self._database}: {error}") from None
            raise self._damaged(error) from None

    def _generation(self, db: sqlite3.Connection) -> int:
        found = db.execute("SELECT value FROM about WHERE key = 'generation'").fetchone()
        if not found or not str(found[0]).isdecimal():
            raise self._damaged("it names no file of vectors")
        return int(found[0])

    def _forget(self, names: Sequence[str]) -> None:
        with self._open(write=True) as db:
            db.executemany("DELETE FROM photos WHERE name = ?", [(os.fsencode(name),) for name in names])

    def _add(
        self,
        names: Sequence[str],
        stamps: Mapping[str, Stamp],
        encode: Callable[[Sequence[str]], Iterator[Encoded]],
    ) -> dict[str, str]:
        if not names:
            return {}
        faults: dict[str, str] = {}
        waiting: list[str] = []
        with self._open(write=True) as db:
            path = self._vectors(self._generation(db))
        next_row = self._rows(path)
        with path.open("ab") as vectors, tqdm(desc="indexing", total=len(names), unit=" photos", disable=None) as bar:
            vectors.truncate(next_row * 4 * self.dim)

            def commit() -> None:
                nonlocal next_row
                vectors.flush()
                os.fsync(vectors.fileno())
                with self._open(write=True) as db:
                    rows = [(os.fsencode(name), *stamps[name], row) for row, name in enumerate(waiting, next_row)]
                    db.executemany("INSERT INTO photos VALUES (?, ?, ?, ?)", rows)
                next_row += len(waiting)
                waiting.clear()

            last = time.monotonic()
            try:
                for batch in encode(names):
                    if not np.isfinite(batch.vectors_BD).all():
                        raise ValueError("the checkpoint gives features that are not finite; its training diverged")
                    vectors.write(batch.vectors_BD.astype("<f4").tobytes())
                    waiting += batch.names
                    faults.update(batch.faults)
                    bar.update(len(batch.names) + len(batch.faults))
                    if len(waiting) >= _COMMIT_ROWS or time.monotonic() - last > _COMMIT_SECONDS:
                        commit()
                        last = time.monotonic()
            finally:
                commit()
        return faults

    def _compact(self) -> None:
        """Write the rows that have a photo to the next file, where too many have none."""
        photos = self.read()
        old = self._vectors(photos.generation)
        rows = self._rows(old)
        if rows - len(photos.names) <= _DEAD_SHARE * rows:
            return
        new = self._vectors(photos.generation + 1)
        with new.open("wb") as file:
            for start in range(0, len(photos.names), _ROWS_AT_ONCE):
                file.write(photos.vectors_ND[start : start + _ROWS_AT_ONCE].tobytes())
            file.flush()
            os.fsync(file.fileno())
        with self._open(write=True) as db:
            # In ascending order, because then no two photos have the same row on the way.
            db.executemany("UPDATE photos SET row = ? WHERE row = ?", enumerate(photos.row_N.tolist()))
            db.execute("UPDATE about SET value = ? WHERE key = 'generation'", [str(photos.generation + 1)])
        old.unlink()
