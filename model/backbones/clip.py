"""Where weights come from: OpenAI's archives, plain state dicts, published run directories; all end in our key names.

Archives are looked for on disk first and downloaded last. Only tensors are read, and no code in a file is run.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.spec import BackboneOptions, ClipSizes, Encoded
from model.backbones.towers import ImageTower, TextTower
from model.checkpoints.archives import find_weights, load_strict, read_weights


class CLIP(nn.Module):
    """Both towers with CLIP's random initialisation; :mod:`model.weights` fills in trained weights."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.visual = ImageTower(sizes)
        self.text = TextTower(sizes)
        self.visual.transformer.init(sizes.vision_layers)
        self.text.transformer.init(sizes.text_layers)
        self.prompts: nn.Module | None = None
        """prompts of both towers, put there by :mod:`model.adapters.prompts`"""

    def encode_image(self, images_BCHW: Tensor) -> Encoded:
        """Normalised pixels to tokens and pooled features, with the prompts if there are any."""
        return self.visual(images_BCHW, () if self.prompts is None else self.prompts.image())

    def encode_text(self, ids_BL: Tensor) -> Encoded:
        """Token ids to tokens and pooled features, with the prompts if there are any."""
        return self.text(ids_BL, () if self.prompts is None else self.prompts.text())


VIT_B_16 = ClipSizes(512, (224, 224), 16, 16, 768, 12, 512, 12, 49408, 77)
"""the sizes that OpenAI published for ViT-B/16"""

RANDOM = {
    "tiny": ClipSizes(64, (224, 224), 16, 16, 64, 2, 64, 2, 49408, 77),
    "small": ClipSizes(192, (224, 224), 16, 16, 192, 4, 128, 2, 49408, 77),
    "random-ViT-B/16": VIT_B_16,
}
"""architectures with random weights: ``tiny`` for tests, ``small`` for the demo, ``random-ViT-B/16`` for timing"""


def load_clip(options: BackboneOptions) -> CLIP:
    """The towers that ``--pretrain_choice`` names, at the size of ``--img_size``.

    Raises:
        ValueError: the file is absent, damaged or does not describe a CLIP model; names the file and the remedy.
    """
    if options.pretrain_choice in RANDOM:
        return CLIP(at_resolution(RANDOM[options.pretrain_choice], options))
    path = find_weights(options.pretrain_choice)
    state = clip_names(read_weights(path))
    try:
        stored = sizes_of(state)
    except KeyError as error:
        raise ValueError(
            f"--pretrain_choice {path}: not a CLIP vision transformer, it has no weight {error}; its first keys are "
            f"{', '.join(list(state)[:5])}"
        ) from None
    except ValueError as error:
        raise ValueError(f"--pretrain_choice {path}: not a CLIP vision transformer, {error}") from None
    sizes = at_resolution(stored, options)
    clip = CLIP(sizes)
    state["visual.positional_embedding"] = resize_positions(state["visual.positional_embedding"], sizes.grid)
    load_strict(clip, state, f"--pretrain_choice {path}")
    return clip


def at_resolution(sizes: ClipSizes, options: BackboneOptions) -> ClipSizes:
    """The same towers for another image size and stride."""
    stride = options.stride_size or sizes.patch_size
    if min(options.img_size) < sizes.patch_size:
        shown = " ".join(str(side) for side in options.img_size)
        raise ValueError(f"--img_size {shown}: smaller than one patch of {sizes.patch_size} pixels")
    return replace(sizes, image_size=tuple(options.img_size), stride=stride)


def weights_file(options: BackboneOptions) -> Path | None:
    """The file that ``--pretrain_choice`` stands for; None for random weights."""
    return None if options.pretrain_choice in RANDOM else find_weights(options.pretrain_choice)


_TEXT_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")

_CLIP_EXTRAS = ("input_resolution", "context_length", "vocab_size", "logit_scale")


def clip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's key names to ours (the text tower's keys move under ``text.``), half precision to float32."""
    ours = {}
    for key, value in state.items():
        root = key.split(".")[0]
        if root in _CLIP_EXTRAS:
            continue
        name = f"text.{key}" if root in _TEXT_PARTS else key
        ours[_projection_names(name)] = value.float() if value.is_floating_point() else value
    return ours


def _projection_names(key: str) -> str:
    return re.sub(r"\.in_proj_(weight|bias)$", r".in_proj.\1", key)


_SHAPED = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "text.token_embedding.weight": 2,
    "text.text_projection": 2,
    "text.positional_embedding": 2,
}
"""weights that the sizes of the towers are read off, and how many dimensions each has"""


def sizes_of(state: Mapping[str, Tensor], prefix: str = "") -> ClipSizes:
    """Every size of the towers, read off a state dict with our key names; the image is assumed square.

    Raises:
        KeyError: a key that every CLIP vision transformer has is missing.
        ValueError: such a weight has the wrong number of dimensions, or none of them.
    """
    for name, dimensions in _SHAPED.items():
        shape = tuple(state[prefix + name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise ValueError(f"its weight {prefix}{name} has the shape {shape}")
    conv = state[f"{prefix}visual.conv1.weight"]
    patch = conv.shape[-1]
    side = patch * round((state[f"{prefix}visual.positional_embedding"].shape[0] - 1) ** 0.5)
    vocab_size, text_width = state[f"{prefix}text.token_embedding.weight"].shape
    return ClipSizes(
        embed_dim=state[f"{prefix}text.text_projection"].shape[1],
        image_size=(side, side),
        patch_size=patch,
        stride=patch,
        vision_width=conv.shape[0],
        vision_layers=_layers(state, f"{prefix}visual.transformer.resblocks."),
        text_width=text_width,
        text_layers=_layers(state, f"{prefix}text.transformer.resblocks."),
        vocab_size=vocab_size,
        context_length=state[f"{prefix}text.positional_embedding"].shape[0],
    )


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def resize_positions(positions_LW: Tensor, grid: tuple[int, int]) -> Tensor:
    """A square grid of position embeddings resized to another grid, bilinear; the class position is kept.

    Args:
        positions_LW: (1 + side * side, W), the class position first.
        grid: rows and columns wanted.
    """
    if positions_LW.shape[0] == grid[0] * grid[1] + 1 and grid[0] == grid[1]:
        return positions_LW
    side = round((positions_LW.shape[0] - 1) ** 0.5)
    if side * side + 1 != positions_LW.shape[0]:
        raise ValueError(f"{positions_LW.shape[0]} image positions are not a square grid and a class position")
    grid_1WRC = positions_LW[1:].T.reshape(1, -1, side, side)
    resized_1WRC = F.interpolate(grid_1WRC, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions_LW[:1], resized_1WRC.flatten(2)[0].T])
