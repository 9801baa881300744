"""The views of IRRA: plain, mirrored, and mirrored, shifted and erased.

Given the same numbers the result equals torchvision's pipeline Resize, flip, Pad(10), crop, ToTensor, Normalize, erase;
the numbers have the distributions of its random transforms.

Shape letters: B batch, C 3 channels, H height, W width.
"""

import numpy as np
import torch
from torch import Tensor

from datasets.augmentation.pixels import Colour, normalise, on_device
from datasets.augmentation.view import View, erased_box

PAD = 10
"""pixels of black on each side before the random crop"""
NUMBERS = ("flip", "crop_top", "crop_left", "erase_top", "erase_left", "erase_height", "erase_width")
"""what the numbers of a sample mean; the crop counts from the corner of the padded image"""

_ERASED_AREA = (0.02, 0.4)


class IRRAView(View):
    """``flip`` mirrors half of the images; ``vary`` shifts them by up to ``PAD`` pixels and erases a box in half."""

    def __init__(self, flip: bool, vary: bool) -> None:
        self._flip, self._vary = flip, vary

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> np.ndarray:
        """(7,) int32, in the order of ``NUMBERS``."""
        flip, top, left, box = 0, PAD, PAD, (0, 0, 0, 0)
        if self._flip:
            flip = int(rng.random() < 0.5)
        if self._vary:
            top, left = (int(offset) for offset in rng.integers(0, 2 * PAD + 1, 2))
            if rng.random() < 0.5:
                box = erased_box(rng, size, _ERASED_AREA)
        return np.array((flip, top, left, *box), np.int32)

    def apply(self, images: Tensor, numbers: Tensor, mean: Colour, std: Colour) -> Tensor:
        """Flip, pad and crop, normalise and erase; see the base class."""
        if not len(images):  # the share of a process in a last batch that is smaller than their number
            return images.float()
        height, width = images.shape[2:]
        numbers = numbers.to(images.device, non_blocking=True)
        flip, crop_top, crop_left, top, left, box_height, box_width = numbers.long().unsqueeze(2).unbind(1)
        row_H = torch.arange(height, device=images.device)
        column_W = torch.arange(width, device=images.device)
        mean_C11 = on_device(mean, images.device)

        views = normalise(_flip_and_crop(images, flip, crop_top + row_H, crop_left), mean, std)
        erased_BH = (row_H >= top) & (row_H < top + box_height)
        erased_BW = (column_W >= left) & (column_W < left + box_width)
        erased_B1HW = (erased_BH.unsqueeze(2) & erased_BW.unsqueeze(1)).unsqueeze(1).float()
        # Exact, every factor being 0 or 1, and on a CPU ten times faster than torch.where. The published code fills
        # with the mean as it stands, after the normalisation.
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
