"""Photos in a folder: their names, and their pixels in batches.

Shape letters: B batch, H height, W width.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.images.decode import ImageError, load_resized
from datasets.parallel import chunked, leave_signals_to_the_loop
from gallery.index import Stamp
from utils import UserError
from utils.log import hide_bar

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
"""of the formats that :mod:`datasets.images.decode` reads"""
_PER_WORKER = 64
"""photos for each process; starting one for fewer costs more than it saves"""


class FolderContents(NamedTuple):
    """The photos below a folder, and how much else there is."""

    stamps: dict[str, Stamp]
    """by path below the folder, with slashes; in the order of the paths"""
    links: int
    """symbolic links, which are not followed: they may lead out of the folder"""
    others: int
    """hidden files, and files without the suffix of a photo"""


def find_photos(folder: Path) -> FolderContents:
    """All photos below a folder.

    Raises:
        UserError: there is no such folder, or a folder in it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--gallery {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    stamps: dict[str, Stamp] = {}
    links = others = 0
    root = os.path.join(folder, "")  # noqa: PTH118
    with tqdm(desc="finding photos", unit=" photos", leave=False, delay=1, disable=hide_bar()) as bar:
        for entry in _files(root):
            if entry.is_symlink():
                links += 1
            elif entry.is_file() and entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                status = entry.stat()
                stamps[entry.path[len(root) :]] = (status.st_size, status.st_mtime_ns)
                bar.update()
            else:
                others += 1
    return FolderContents(dict(sorted(stamps.items())), links, others)


def _files(folder: str) -> Iterator[os.DirEntry]:
    """Everything below a folder except folders; hidden folders are not entered."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif not entry.name.startswith("."):
                    yield from _files(entry.path)
    except OSError as error:
        raise UserError(f"--gallery: {folder} cannot be read ({error.strerror})") from None


class PhotoBatch(NamedTuple):
    """Some photos, decoded and resized."""

    names: list[str]
    pixels_BCHW: Tensor
    """uint8, one row for each name"""
    faults: dict[str, str]
    """photos of this batch that cannot be decoded, with the reasons; they have no row"""


@dataclass(frozen=True)
class _BatchDecoder:
    """What a worker does with the names of a batch."""

    folder: Path
    size: tuple[int, int]
    resize_filter: str

    def __call__(self, names: Sequence[str]) -> PhotoBatch:
        good, pixels, faults = [], [np.empty((0, 3, *self.size), np.uint8)], {}
        for name in names:
            try:
                pixels.append(load_resized(self.folder / name, self.size, self.resize_filter)[None])
                good.append(name)
            except ImageError as error:
                faults[name] = str(error)
        return PhotoBatch(good, torch.from_numpy(np.concatenate(pixels)), faults)


def photo_batches(
    names: Sequence[str],
    folder: Path,
    size: tuple[int, int],
    batch_size: int,
    workers: int,
    resize_filter: str = "bilinear",
) -> Iterable[PhotoBatch]:
    """The photos of these names below ``folder`` at ``size`` = (H, W), in order, from up to ``workers`` processes."""
    return DataLoader(
        chunked(names, batch_size),
        batch_size=None,  # each item is a batch already
        collate_fn=_BatchDecoder(folder, size, resize_filter),
        num_workers=min(workers, len(names) // _PER_WORKER),
        worker_init_fn=leave_signals_to_the_loop,
    )


def printable(name: str) -> str:
    """A path as it can be printed: bytes that are not UTF-8 and control characters are replaced."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
