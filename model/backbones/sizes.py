"""What shapes the towers, and what they compute beyond it."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class ClipSizes:
    """Everything that shapes the towers; read off a state dict by :func:`model.backbones.weights.sizes_of`."""

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
    vision_hidden: int | None = None
    """of the image tower's perceptrons; None: 4 times the width"""
    text_hidden: int | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; patches overlap when the stride is smaller than the patch."""
        return tuple((side - self.patch_size) // self.stride + 1 for side in self.image_size)


class TowerForm(NamedTuple):
    """What the shapes of a tower's weights do not show; by default as in OpenAI's CLIP."""

    heads: int | None = None
    """of each attention; None: one for 64 channels"""
    activation: str = "quick_gelu"
    """key in ACTIVATIONS"""
    eps: float = 1e-5
    """of the layer norms"""


OPENAI_FORM = TowerForm()
