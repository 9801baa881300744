"""What a random view of an image is to the loader.

A worker only draws the numbers of each sample (``draw``); the pixels of the whole batch are then changed at once, on
whatever device they are (``apply``).

Shape letters: B batch, H height, W width, N numbers that are drawn for a sample.
"""

import math

import numpy as np
from torch import Tensor

from datasets.augmentation.pixels import Colour

_TRIES = 10


class View:
    """One way of varying an image."""

    needs_original = False
    """whether :meth:`draw` depends on the size that the image has in its file"""

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> np.ndarray:
        """(N,) the random numbers of one view.

        Args:
            rng: the sample's own generator.
            size: (height, width) that images have in the batch.
            original: (height, width) of the image in its file, if :attr:`needs_original`.
        """
        raise NotImplementedError

    def apply(self, images: Tensor, numbers: Tensor, mean: Colour, std: Colour) -> Tensor:
        """The views of a batch, each image by its own numbers, without waiting for the device.

        Args:
            images: (B, 3, H, W) uint8.
            numbers: (B, N) from ``draw``, on the CPU.
            mean, std: see :func:`datasets.augmentation.pixels.normalise`.

        Returns:
            (B, 3, H, W) float32, normalised.
        """
        raise NotImplementedError


def erased_box(rng: np.random.Generator, size: tuple[int, int], area: tuple[float, float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomErasing draws it; all zero if no try fits.

    ``area``: least and most share of the image.
    """
    height, width = size
    for _ in range(_TRIES):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        box_height, box_width = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if box_height < height and box_width < width:
            top, left = rng.integers(0, height - box_height + 1), rng.integers(0, width - box_width + 1)
            return int(top), int(left), box_height, box_width
    return 0, 0, 0, 0


def cropped_box(
    rng: np.random.Generator, size: tuple[int, int], area: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomResizedCrop draws it, aspect ratios from 3/4 to 4/3.

    ``area``: least and most share of the image. If no try fits, the largest box in the centre of such a ratio.
    """
    (height, width), narrow, wide = size, 3 / 4, 4 / 3
    for _ in range(_TRIES):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(narrow), math.log(wide)))
        box_height, box_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = rng.integers(0, height - box_height + 1), rng.integers(0, width - box_width + 1)
            return int(top), int(left), box_height, box_width
    box_height = min(height, round(width / narrow))
    box_width = min(width, round(height * wide))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width
