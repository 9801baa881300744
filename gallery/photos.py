"""Photos in a folder: which there are, and their pixels in batches, for searching.

Shape letters: B batch, H height, W width.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from datasets.images.decode import ImageError, load_resized
from datasets.parallel import as_is, leave_signals_to_the_loop

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""of the formats that :mod:`datasets.images` reads"""
_PER_WORKER = 64
"""photos below which one more process costs more than it saves"""


class Found(NamedTuple):
    """What a folder holds."""

    stamps: dict[str, tuple[int, int]]
    """path below the folder, with slashes, to size in bytes and modification time in ns; in the order of the paths"""
    links: int
    """symbolic links, which are not followed: they may lead anywhere"""
    others: int
    """hidden files and files that no suffix marks as a photo"""


def find_photos(folder: Path) -> Found:
    """All photos below a folder.

    Raises:
        ValueError: there is no such folder, or a folder in it cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"--gallery {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    stamps: dict[str, tuple[int, int]] = {}
    links = others = 0
    root = os.path.join(folder, "")  # noqa: PTH118
    with tqdm(desc="looking for photos", unit=" photos", leave=False, delay=1, disable=None) as bar:
        for entry in _files(root):
            if entry.is_symlink():
                links += 1
            elif entry.is_file() and entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                status = entry.stat()
                stamps[entry.path[len(root) :]] = (status.st_size, status.st_mtime_ns)
                bar.update()
            else:
                others += 1
    return Found(dict(sorted(stamps.items())), links, others)


def _files(folder: str) -> Iterator[os.DirEntry]:
    """Everything below a folder that is not a folder; hidden folders are left out."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif not entry.name.startswith("."):
                    yield from _files(entry.path)
    except OSError as error:
        raise ValueError(f"--gallery: {folder} cannot be read ({error.strerror})") from None


class PhotoBatch(NamedTuple):
    """Some photos, decoded and resized."""

    names: list[str]
    pixels_BCHW: Tensor
    """uint8, one row for each name"""
    faults: dict[str, str]
    """photos of this batch that cannot be decoded, with the reasons; they have no row"""


class _Photos(TorchDataset):
    def __init__(self, folder: Path, names: Sequence[str], size: tuple[int, int]) -> None:
        self.folder, self.names, self.size = folder, names, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, positions: list[int]) -> PhotoBatch:
        good, pixels, faults = [], [np.empty((0, 3, *self.size), np.uint8)], {}
        for name in (self.names[position] for position in positions):
            try:
                pixels.append(load_resized(self.folder / name, self.size)[None])
                good.append(name)
            except ImageError as error:
                faults[name] = str(error)
        return PhotoBatch(good, torch.from_numpy(np.concatenate(pixels)), faults)


def photo_batches(
    names: Sequence[str], folder: Path, size: tuple[int, int], batch_size: int, workers: int
) -> Iterator[PhotoBatch]:
    """The photos of these names below ``folder`` at ``size`` = (H, W), in order, from up to ``workers`` processes."""
    return iter(
        DataLoader(
            _Photos(folder, names, size),
            batch_size=batch_size,
            num_workers=min(workers, len(names) // _PER_WORKER),
            collate_fn=as_is,
            worker_init_fn=leave_signals_to_the_loop,
        )
    )
