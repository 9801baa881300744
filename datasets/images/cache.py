"""Decoded and resized images in one memory-mapped file, so that an epoch costs no decoding.

A cache is a folder of two files: ``pixels`` (N, 3, H, W) uint8, and ``stamps`` (N, 2) int64 with the size and the
modification time that each image file had when it was decoded. A row counts only while its stamp equals the file's,
so a stamp is at once the mark that a row is finished and the means to notice a changed file. Stamps are written
after their pixels have reached the disk: killed at any moment, a cache is incomplete but never wrong.
"""

import errno
import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from datasets.annotations import DataError
from datasets.images.decode import ImageError, load_resized
from datasets.parallel import chunked, run_chunks
from utils.files import locked

logger = logging.getLogger("descry")

_SYNC_EVERY = 512
_NO_STAMP = (0, 0)


class _Job(NamedTuple):
    row: int
    path: Path


class _Done(NamedTuple):
    job: _Job
    stamp: tuple[int, int]
    fault: str | None


class ImageCache:
    """The images of one list of files at one size. Can be sent to other processes; each maps the file for itself."""

    def __init__(
        self, folder: Path, name: str, paths: Sequence[Path], size: tuple[int, int], resize_filter: str = "bilinear"
    ) -> None:
        """Name the cache of ``paths`` at ``size`` = (H, W) below ``folder``; nothing is written before ``build``."""
        self.size, self.resize_filter = size, resize_filter
        self._paths = tuple(paths)
        self._rows = {path: row for row, path in enumerate(self._paths)}
        # Another Pillow may decode or resize to slightly different pixels.
        identity = [1, PIL.__version__, *size, *(os.path.abspath(path) for path in self._paths)]  # noqa: PTH100
        identity += [resize_filter] if resize_filter != "bilinear" else []
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        self.folder = folder / f"{name}-{size[0]}x{size[1]}-{key}"
        self._pixels: np.ndarray | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}

    def __contains__(self, path: Path) -> bool:
        return path in self._rows

    @property
    def _row_bytes(self) -> int:
        return 3 * self.size[0] * self.size[1]

    def read(self, path: Path) -> np.ndarray:
        """One image as uint8 (3, H, W). Only for images that ``build`` did not report."""
        return np.array(self._mapped()[self._rows[path]])

    def read_batch(self, paths: Sequence[Path], out: np.ndarray) -> None:
        """Images into ``out``, uint8 (B, 3, H, W), in one copy that lets other threads run meanwhile."""
        rows = [self._rows[path] for path in paths]
        np.take(self._mapped(), rows, axis=0, out=out, mode="clip")  # the default mode copies twice

    def _mapped(self) -> np.ndarray:
        if self._pixels is None:
            shape = (len(self._paths), 3, *self.size)
            self._pixels = np.asarray(np.memmap(self.folder / "pixels", np.uint8, "r", shape=shape))
        return self._pixels

    def build(self, workers: int) -> dict[Path, str]:
        """Decode what is missing or has changed, in ``workers`` processes, continuing where an earlier build stopped.

        Another process that builds the same cache is waited for. Nothing is written where every row is current.

        Returns:
            the images that cannot be decoded, with the reasons.

        Raises:
            DataError: the folder cannot be written or the disk is too small.
        """
        if not self._outdated():
            return {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "lock"):
                jobs = self._outdated()
                return self._fill(jobs, workers) if jobs else {}
        except KeyboardInterrupt:
            logger.warning("caching stopped: decoded images are kept, the next run continues with the others")
            raise
        except OSError as error:
            where = "choose another --cache_dir or leave --cache out"
            raise DataError(f"image cache {self.folder}: {error.strerror or error}; {where}") from None

    def _outdated(self) -> list[_Job]:
        if self._is_complete():
            stamps = np.fromfile(self.folder / "stamps", np.int64).reshape(-1, 2).tolist()
        else:
            stamps = [_NO_STAMP] * len(self._paths)
        jobs = []
        for row, path in enumerate(self._paths):
            now = _stamp(path)
            if now == _NO_STAMP or now != tuple(stamps[row]):
                jobs.append(_Job(row, path))
        return jobs

    def _is_complete(self) -> bool:
        """Whether both files exist at full length; a file cut short by someone else must not be mapped."""
        row_bytes = {"pixels": self._row_bytes, "stamps": 16}
        files = {self.folder / name: size * len(self._paths) for name, size in row_bytes.items()}
        return all(file.is_file() and file.stat().st_size == length for file, length in files.items())

    def _fill(self, jobs: Sequence[_Job], workers: int) -> dict[Path, str]:
        pixels_path, stamps_path = self.folder / "pixels", self.folder / "stamps"
        if not self._is_complete():
            stamps_path.write_bytes(bytes(16 * len(self._paths)))
            with pixels_path.open("ab") as file:
                file.truncate(0)
                file.truncate(len(self._paths) * self._row_bytes)
        self._announce(jobs, pixels_path)
        stamps = np.memmap(stamps_path, np.int64, "r+", shape=(len(self._paths), 2))
        stamps[[job.row for job in jobs]] = _NO_STAMP
        stamps.flush()
        faults: dict[Path, str] = {}
        waiting: list[_Done] = []

        with pixels_path.open("r+b") as pixels:

            def stamp_waiting() -> None:
                os.fsync(pixels.fileno())
                for done in waiting:
                    stamps[done.job.row] = done.stamp
                stamps.flush()
                waiting.clear()

            task = functools.partial(_decode_into, pixels_path, self.size, self.resize_filter)
            try:
                for results in run_chunks(task, chunked(jobs), workers, "caching images"):
                    faults.update({done.job.path: done.fault for done in results if done.fault})
                    waiting += [done for done in results if not done.fault]
                    if len(waiting) >= _SYNC_EVERY:
                        stamp_waiting()
            finally:
                stamp_waiting()
        return faults

    def _announce(self, jobs: Sequence[_Job], pixels_path: Path) -> None:
        total = len(self._paths) * self._row_bytes
        needed = min(len(jobs) * self._row_bytes, max(0, total - pixels_path.stat().st_blocks * 512))
        free = shutil.disk_usage(self.folder).free
        message = "image cache %s: decoding %d of %d images; %.2f GB when complete, %.2f GB of it still to be written"
        logger.info(message, self.folder, len(jobs), len(self._paths), total / 1e9, needed / 1e9)
        if needed > free:
            raise DataError(
                f"image cache {self.folder}: needs {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free; "
                "choose another --cache_dir or leave --cache out"
            )


def _decode_into(pixels_path: Path, size: tuple[int, int], resize_filter: str, jobs: Sequence[_Job]) -> list[_Done]:
    """Runs in a worker. Writes by system call, because a full disk kills a process that writes through a mapping."""
    results = []
    with pixels_path.open("r+b", buffering=0) as pixels:
        for job in jobs:
            stamp = _stamp(job.path)  # before decoding: a file that changes meanwhile gets an outdated stamp
            try:
                image = load_resized(job.path, size, resize_filter)
            except ImageError as error:
                results.append(_Done(job, _NO_STAMP, str(error)))
                continue
            if os.pwrite(pixels.fileno(), image.data, job.row * image.nbytes) != image.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            results.append(_Done(job, stamp, None))
    return results


def _stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; zeros where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return _NO_STAMP
    return status.st_size, status.st_mtime_ns
