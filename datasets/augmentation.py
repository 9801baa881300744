"""Random views of training images, in two halves, and the one view that evaluation uses.

A worker only draws a handful of numbers per sample (``draw``); the pixels of the whole batch are then changed at once,
on whatever device they are (``apply``). Given the same numbers the result equals torchvision's pipeline Resize, flip,
Pad(10), crop, ToTensor, Normalize, erase; the numbers have the distributions of its random transforms.

Shape letters: B batch, C 3 channels, H height, W width.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

Colour = tuple[float, float, float]
"""one number for each of R, G and B"""
PAD = 10
"""pixels of black on each side before the random crop"""
PARAMS = ("flip", "crop_top", "crop_left", "erase_top", "erase_left", "erase_height", "erase_width")
"""what the numbers of a sample mean; the crop counts from the corner of the padded image"""
KINDS = ("plain", "flip", "augment")

_ERASE_AREA = (0.02, 0.4)
_ERASE_LOG_RATIO = (math.log(0.3), math.log(3.3))
_ERASE_TRIES = 10


def draw(rng: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    """The random numbers of one view of an image of height x width pixels, int32 in the order of ``PARAMS``.

    Args:
        rng: the sample's own generator.
        kind: ``plain`` changes nothing, ``flip`` mirrors half of the images, ``augment`` flips, shifts by up to
            ``PAD`` pixels and erases a rectangle in half of the images.
        height, width: of the image.
    """
    if kind not in KINDS:
        raise ValueError(f"view {kind!r}: choose {', '.join(KINDS)}")
    flip, top, left, box = 0, PAD, PAD, (0, 0, 0, 0)
    if kind != "plain":
        flip = int(rng.random() < 0.5)
    if kind == "augment":
        top, left = (int(offset) for offset in rng.integers(0, 2 * PAD + 1, 2))
        if rng.random() < 0.5:
            box = _erase_box(rng, height, width)
    return np.array((flip, top, left, *box), np.int32)


def _erase_box(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomErasing draws it; all zero if no try fits."""
    for _ in range(_ERASE_TRIES):
        area = height * width * rng.uniform(*_ERASE_AREA)
        ratio = math.exp(rng.uniform(*_ERASE_LOG_RATIO))
        box_height, box_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if box_height < height and box_width < width:
            top, left = rng.integers(0, height - box_height + 1), rng.integers(0, width - box_width + 1)
            return int(top), int(left), box_height, box_width
    return 0, 0, 0, 0


def apply(images: Tensor, params: Tensor, mean: Colour, std: Colour) -> Tensor:
    """Flip, pad and crop, normalise and erase a batch, each image by its own numbers, without waiting for the device.

    Args:
        images: (B, 3, H, W) uint8.
        params: (B, 7) integers from ``draw``, on the same device.
        mean, std: see :func:`normalise`.

    Returns:
        (B, 3, H, W) float32.
    """
    if not len(images):  # the share of a process in a last batch that is smaller than their number
        return images.float()
    height, width = images.shape[2:]
    flip, crop_top, crop_left, top, left, box_height, box_width = params.long().unsqueeze(2).unbind(1)
    row_H = torch.arange(height, device=images.device)
    column_W = torch.arange(width, device=images.device)
    mean_C11 = _constant(mean, images.device)

    views = normalise(_flip_and_crop(images, flip, crop_top + row_H, crop_left), mean, std)
    erased_BH = (row_H >= top) & (row_H < top + box_height)
    erased_BW = (column_W >= left) & (column_W < left + box_width)
    erased_B1HW = (erased_BH.unsqueeze(2) & erased_BW.unsqueeze(1)).unsqueeze(1).float()
    # Exact, every factor being 0 or 1, and on a CPU ten times faster than torch.where. The published code fills with
    # the mean as it stands, after the normalisation.
    return views.mul_(1 - erased_B1HW).addcmul_(mean_C11, erased_B1HW)


def _flip_and_crop(images: Tensor, flip_B1: Tensor, row_BH: Tensor, left_B1: Tensor) -> Tensor:
    """``out[b, c, y] = source[c, row[b, y], left[b] : left[b] + W]``; source: padded image b or its mirror image.

    Copies whole rows: every start of a row is an index into an overlapping view of all pixels in one line.
    """
    batch, channels, _, width = images.shape
    sources = torch.nn.functional.pad(torch.cat([images, images.flip(3)]), (PAD,) * 4)
    image_B1 = torch.arange(batch, device=images.device).unsqueeze(1) + batch * flip_B1
    plane_BC = image_B1 * channels + torch.arange(channels, device=images.device)
    line_BCH = plane_BC.unsqueeze(2) * sources.shape[2] + row_BH.unsqueeze(1)
    start_BCH = line_BCH * sources.shape[3] + left_B1.unsqueeze(2)
    return sources.flatten().unfold(0, width, 1).index_select(0, start_BCH.flatten()).view(images.shape)


def normalise(images: Tensor, mean: Colour, std: Colour) -> Tensor:
    """uint8 images (B, 3, H, W) as a backbone expects them, float32: (value / 255 - mean) / std."""
    return images.float().div_(255).sub_(_constant(mean, images.device)).div_(_constant(std, images.device))


@functools.cache
def _constant(colour: Colour, device: torch.device) -> Tensor:
    """(3, 1, 1), copied to a device once: a copy in every step would wait for the device."""
    return torch.tensor(colour, device=device).view(3, 1, 1)
