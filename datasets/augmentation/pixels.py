"""From the 8-bit pixels of the loader to what a model takes.

Shape letters: B batch, H height, W width.
"""

import functools

import torch
from torch import Tensor

Colour = tuple[float, float, float]
"""one number for each of R, G and B"""


def normalise(images: Tensor, mean: Colour, std: Colour) -> Tensor:
    """uint8 images (B, 3, H, W) as a backbone expects them, float32: (value / 255 - mean) / std."""
    return images.float().div_(255).sub_(on_device(mean, images.device)).div_(on_device(std, images.device))


@functools.cache
def on_device(colour: Colour, device: torch.device) -> Tensor:
    """(3, 1, 1), copied to a device once: a copy in every step would wait for the device."""
    return torch.tensor(colour, device=device).view(3, 1, 1)
