"""The pixels of image files at one size, and the flags of reading them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.images.cache import ImageCache
from datasets.images.decode import load_resized, upright_size
from utils.options import opt


@dataclass(frozen=True)
class ImageOptions:
    """How image files are read."""

    bad_images: str = opt("error", "missing or undecodable images: stop, or leave them out", choices=("error", "skip"))
    cache: bool = opt(False, "decode and resize every image once, into a file that is kept")
    cache_dir: Path | None = opt(None, "where --cache keeps its files; default ROOT_DIR/.image_cache")


class Images:
    """The pixels of image files at one size, from a cache where there is one."""

    def __init__(
        self, size: tuple[int, int], caches: Sequence[ImageCache] = (), resize_filter: str = "bilinear"
    ) -> None:
        """Images of ``size`` = (H, W); of the caches, those of another filter are not used."""
        self.size, self.resize_filter, self._all = size, resize_filter, tuple(caches)
        self._originals: dict[Path, tuple[int, int]] = {}
        self._caches = tuple(cache for cache in caches if cache.resize_filter == resize_filter)

    def with_filter(self, resize_filter: str) -> "Images":
        """The same images, resized with another filter."""
        return self if resize_filter == self.resize_filter else Images(self.size, self._all, resize_filter)

    @property
    def cached(self) -> bool:
        """Whether there is a cache, so that reading is copying."""
        return bool(self._caches)

    def read_batch(self, paths: Sequence[Path], pin_memory: bool) -> Tensor:
        """Images as uint8 (B, 3, H, W).

        Raises:
            ImageError: a file cannot be decoded.
        """
        pixels_BCHW = torch.empty((len(paths), 3, *self.size), dtype=torch.uint8, pin_memory=pin_memory)
        for cache in self._caches:
            if all(path in cache for path in paths):
                cache.read_batch(paths, pixels_BCHW.numpy())
                return pixels_BCHW
        for path, row_CHW in zip(paths, pixels_BCHW.numpy(), strict=True):
            np.copyto(row_CHW, self.read(path))
        return pixels_BCHW

    def read(self, path: Path) -> np.ndarray:
        """One image as uint8 (3, H, W).

        Raises:
            ImageError: the file cannot be decoded.
        """
        for cache in self._caches:
            if path in cache:
                return cache.read(path)
        return load_resized(path, self.size, self.resize_filter)

    def original_size(self, path: Path) -> tuple[int, int]:
        """(height, width) of an upright image in its file, of which only the head is read, once by each process.

        Raises:
            ImageError: the file cannot be read.
        """
        if path not in self._originals:
            self._originals[path] = upright_size(path)
        return self._originals[path]

    def picture(self, path: Path) -> Image.Image:
        """What :meth:`read` gives, to be looked at."""
        return Image.fromarray(self.read(path).transpose(1, 2, 0))
