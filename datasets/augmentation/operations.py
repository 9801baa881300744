"""Single random operations on images, of which views are composed.

Each draws its numbers for one sample, and changes a group of images, each by its own numbers. Given the same numbers
the result is that of torchvision's function on a float image.

Shape letters: B images, H height, W width, N numbers of a sample, T taps of a filter.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from datasets.augmentation.view import cropped_box, erased_box

MOST_NUMBERS = 5
"""that any operation draws"""
_ORDERS = tuple(itertools.permutations(range(4)))
_LUMA = (0.2989, 0.587, 0.114)
"""weights of R, G and B in a grey value"""


@dataclass(frozen=True)
class Operation:
    """One operation, done with a probability."""

    probability: float = 1.0
    needs_original: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> tuple[float, ...]:
        """Up to ``MOST_NUMBERS`` numbers; see :meth:`datasets.augmentation.view.View.draw`."""
        return ()

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """Images (B, 3, H, W), float32 in 0..1, by their numbers (B, MOST_NUMBERS); may reuse the images' memory."""
        raise NotImplementedError


@dataclass(frozen=True)
class Flip(Operation):
    """Mirror left and right."""

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """See the base class."""
        return images.flip(3)


@dataclass(frozen=True)
class Grayscale(Operation):
    """Keep the grey value only."""

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """See the base class."""
        return _grey(images).repeat(1, 3, 1, 1)


@dataclass(frozen=True)
class Jitter(Operation):
    """Brightness, contrast, saturation and hue, in random order (torchvision's ColorJitter)."""

    brightness: float = 0.0
    """the factor is drawn from 1 - brightness to 1 + brightness"""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """the shift is drawn from -hue to hue, in turns of the colour circle"""

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> tuple[float, ...]:
        """Order, three factors, and the shift of the hue."""
        ranges = (self.brightness, self.contrast, self.saturation)
        factors = [float(rng.uniform(1 - width, 1 + width)) for width in ranges]
        return (int(rng.integers(len(_ORDERS))), *factors, float(rng.uniform(-self.hue, self.hue)))

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """See the base class."""
        steps_B4 = np.array(_ORDERS)[numbers[:, 0].astype(int)]
        amounts = [self.brightness, self.contrast, self.saturation, self.hue]
        for place, step in itertools.product(range(4), range(4)):
            rows = np.flatnonzero(steps_B4[:, place] == step)
            if len(rows) and amounts[step]:
                amount_B = _column(numbers[rows, 1 + step], images)
                images = of_rows(images, rows, functools.partial(_CHANGES[step], amount_B=amount_B))
        return images


@dataclass(frozen=True)
class Rotation(Operation):
    """Turn about the centre, nearest pixel, same canvas, black corners."""

    degrees: float = 15.0
    """most, either way"""

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> tuple[float, ...]:
        """Degrees, counter-clockwise."""
        return (float(rng.uniform(-self.degrees, self.degrees)),)

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """See the base class."""
        height, width = images.shape[2:]
        angle_B = np.deg2rad(numbers[:, 0].astype(np.float64))
        cos_B, sin_B, zero_B = np.cos(angle_B), np.sin(angle_B), np.zeros(len(angle_B))
        # where a pixel of the result comes from, in pixels from the centre, then in halves of a side
        rows = [
            np.stack([cos_B, -sin_B, zero_B], 1) / (0.5 * width),
            np.stack([sin_B, cos_B, zero_B], 1) / (0.5 * height),
        ]
        theta_B23 = _column(np.stack(rows, 1), images)
        base_H1W3 = _centred_grid(height, width, images.device)
        grid_BHW2 = (base_H1W3.view(1, height * width, 3) @ theta_B23.transpose(1, 2)).view(-1, height, width, 2)
        return F.grid_sample(images, grid_BHW2, mode="nearest", padding_mode="zeros", align_corners=False)


@dataclass(frozen=True)
class Crop(Operation):
    """Cut a box out and resize it to the size of the image, bilinear with antialias (RandomResizedCrop)."""

    area: tuple[float, float] = (0.9, 1.0)
    """least and most share of the image"""

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> tuple[float, ...]:
        """Top, left, height and width."""
        return cropped_box(rng, size, self.area)

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """See the base class."""
        size = list(images.shape[2:])
        cropped = [
            TF.resized_crop_image(image[None], *map(int, box[:4]), size, antialias=True)
            for image, box in zip(images, numbers, strict=True)
        ]
        return torch.cat(cropped)


@dataclass(frozen=True)
class OriginalCrop(Crop):
    """The same, but the box is drawn on the image as it is in its file, before anything resized it."""

    needs_original: ClassVar[bool] = True

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> tuple[float, ...]:
        """See the base class; moved to whole pixels of the resized image."""
        top, left, height, width = cropped_box(rng, original, self.area)
        (top, bottom), (left, right) = (
            (min(round(start * now / before), now - 1), round((start + length) * now / before))
            for start, length, now, before in zip((top, left), (height, width), size, original, strict=True)
        )
        return top, left, max(bottom - top, 1), max(right - left, 1)


@dataclass(frozen=True)
class Erasing(Operation):
    """Blacken a box (torchvision's RandomErasing)."""

    area: tuple[float, float] = (0.1, 0.2)
    """least and most share of the image"""

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> tuple[float, ...]:
        """Top, left, height and width."""
        return erased_box(rng, size, self.area)

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """See the base class."""
        images = images.clone()
        for image, (top, left, height, width) in zip(images, numbers[:, :4].astype(int).tolist(), strict=True):
            image[:, top : top + height, left : left + width] = 0
        return images


@dataclass(frozen=True)
class Blur(Operation):
    """Gaussian blur; beyond the border the image goes on as its last row or column."""

    sigma: tuple[float, float] = (0.1, 2.0)
    """least and most, in pixels"""

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> tuple[float, ...]:
        """Sigma."""
        return (float(rng.uniform(*self.sigma)),)

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """See the base class."""
        reach = max(1, int(np.ceil(3 * numbers[:, 0].max())))
        offset_T = np.arange(-reach, reach + 1)
        weight_BT = np.exp(-0.5 * (offset_T / numbers[:, :1]) ** 2)
        weight_BT /= weight_BT.sum(axis=1, keepdims=True)
        tap_TB = _column(weight_BT.T, images)[..., None, None, None]
        height, width = images.shape[2:]
        padded = F.pad(images, (reach, reach, 0, 0), mode="replicate")
        images = sum(taps_B * padded[..., start : start + width] for start, taps_B in enumerate(tap_TB))
        padded = F.pad(images, (0, 0, reach, reach), mode="replicate")
        return sum(taps_B * padded[:, :, start : start + height] for start, taps_B in enumerate(tap_TB))


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _brighter(images: Tensor, amount_B: Tensor) -> Tensor:
    return (images * amount_B.view(-1, 1, 1, 1)).clamp_(0, 1)


def _blended(images: Tensor, other: Tensor, amount_B: Tensor) -> Tensor:
    return torch.lerp(other, images, amount_B.view(-1, 1, 1, 1)).clamp_(0, 1)


def _contrasted(images: Tensor, amount_B: Tensor) -> Tensor:
    return _blended(images, _grey(images).mean(dim=(1, 2, 3), keepdim=True), amount_B)


def _saturated(images: Tensor, amount_B: Tensor) -> Tensor:
    return _blended(images, _grey(images), amount_B)


def _hue_shifted(images: Tensor, amount_B: Tensor) -> Tensor:
    """The hue of HSV moved on, by turns of the colour circle; value and saturation stay."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    per_chroma = chroma.clamp(min=torch.finfo(images.dtype).tiny).reciprocal_()  # without chroma all differences are 0
    at_green, at_blue = (blue - red).mul_(per_chroma).add_(2), (red - green).mul_(per_chroma).add_(4)
    sixth = torch.where(value == green, at_green, at_blue)
    sixth = torch.where(value == red, (green - blue).mul_(per_chroma), sixth).add_(6 * amount_B.view(-1, 1, 1))
    moved = torch.empty_like(images)
    for channel, start in enumerate((5.0, 3.0, 1.0)):  # each channel falls and rises on the circle once
        place = sixth + start
        place.sub_(torch.floor(place / 6).mul_(6)).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
        torch.sub(value, place.mul_(chroma), out=moved[:, channel])
    return moved


_CHANGES = (_brighter, _contrasted, _saturated, _hue_shifted)


def of_rows(images: Tensor, rows: np.ndarray, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images, those in ``rows`` changed together."""
    if len(rows) == len(images):
        return change(images)
    index = torch.from_numpy(rows).to(images.device, non_blocking=True)
    return images.index_copy(0, index, change(images[index]))


def _column(values: np.ndarray, images: Tensor) -> Tensor:
    """Numbers of a group as a float tensor beside its images."""
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(images.device, non_blocking=True)


@functools.lru_cache(8)
def _centred_grid(height: int, width: int, device: torch.device) -> Tensor:
    """(H, 1, W, 3) x, y and 1 of every pixel, from the centre, in pixels."""
    x_W = torch.arange(width, device=device, dtype=torch.float32) + 0.5 - width / 2
    y_H = torch.arange(height, device=device, dtype=torch.float32) + 0.5 - height / 2
    y_HW, x_HW = torch.meshgrid(y_H, x_W, indexing="ij")
    return torch.stack([x_HW, y_HW, torch.ones_like(x_HW)], dim=2)
