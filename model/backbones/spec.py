"""TODO"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from utils.options import opt


class Encoded(NamedTuple):
    """What a tower returns."""

    tokens: Tensor
    """(B, L, D) every token in the joint space"""
    pooled: Tensor
    """(B, D) the feature used for retrieval, not normalised"""
    routing: Tensor
    """(N, 2, E) of the N blocks with E experts: summed over tokens, the probability of each expert and how often it was
    chosen; 0 without experts"""


@dataclass(frozen=True)
class ClipSizes:
    """Everything that shapes the towers; read off a state dict by :func:`model.weights.sizes_of`."""

    embed_dim: int
    image_size: tuple[int, int]
    """(height, width) in pixels"""
    patch_size: int
    stride: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    vocab_size: int
    context_length: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; patches overlap when the stride is smaller than the patch."""
        return tuple((side - self.patch_size) // self.stride + 1 for side in self.image_size)


@dataclass(frozen=True)
class BackboneOptions:
    """Which towers to start from."""

    pretrain_choice: str = opt(
        "ViT-B/16",
        "CLIP weights: ViT-B/16, a file (TorchScript archive or state dict), or without weights: tiny (2 layers of 64, "
        "for tests), small (4 layers of 192 and 2 of 128, for the demo), random-ViT-B/16",
    )
    img_size: tuple[int, ...] = opt((384, 128), "input height and width in pixels")
    stride_size: int | None = opt(None, "pixels between patches; smaller than the patch makes them overlap [patch]")

    def __post_init__(self) -> None:
        if len(self.img_size) != 2 or min(self.img_size) < 1:
            shown = " ".join(str(side) for side in self.img_size)
            raise ValueError(f"--img_size {shown}: expected height and width in pixels, as in --img_size 384 128")
        if self.stride_size is not None and self.stride_size < 1:
            raise ValueError(f"--stride_size {self.stride_size}: expected at least 1 pixel")
