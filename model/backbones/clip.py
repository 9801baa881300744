"""CLIP (Radford et al., ICML 2021), in every size that OpenAI's names fit: sizes are read off the weights."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.clip_tokenizer import ClipTokenizer, shared_tokenizer
from model.backbones.spec import Backbone, BackboneOptions, BackboneSpec, Encoded
from model.backbones.towers import ClipSizes, ImageTower, TextTower
from model.checkpoints.archives import find_weights, layers_in, load_strict, read_weights
from utils import UserError

VIT_B_16 = ClipSizes(512, (224, 224), 16, 16, 768, 12, 512, 12, 49408, 77)
"""the sizes that OpenAI published for ViT-B/16"""

RANDOM = {
    "tiny": ClipSizes(64, (224, 224), 16, 16, 64, 2, 64, 2, 49408, 77),
    "small": ClipSizes(192, (224, 224), 16, 16, 192, 4, 128, 2, 49408, 77),
    "random-ViT-B/16": VIT_B_16,
}
"""architectures with random weights: ``tiny`` for tests, ``small`` for the demo, ``random-ViT-B/16`` for timing"""


class CLIP(Backbone):
    """Both towers with CLIP's random initialisation, to be filled with trained weights."""

    name = "clip"
    gives_attention = True

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.spec = BackboneSpec(
            embed_dim=sizes.embed_dim,
            vocab_size=sizes.vocab_size,
            image_size=sizes.image_size,
            context_length=sizes.context_length,
            text_is_causal=True,
            pixel_mean=(0.48145466, 0.4578275, 0.40821073),
            pixel_std=(0.26862954, 0.26130258, 0.27577711),
            text_width=sizes.text_width,
            image_width=sizes.vision_width,
            prompt_blocks=min(sizes.vision_layers, sizes.text_layers),
        )
        self.visual = ImageTower(sizes)
        self.text = TextTower(sizes)
        self.visual.transformer.init()
        self.text.transformer.init()

    @property
    def tokenizer(self) -> ClipTokenizer:
        """CLIP's byte-pair tokenizer."""
        return shared_tokenizer()

    @classmethod
    def load(cls, choice: str, options: BackboneOptions) -> "CLIP":
        """See the base class; ``choice``: a published name, a file, or an architecture with random weights."""
        if choice in RANDOM:
            return cls(at_resolution(RANDOM[choice], options))
        path = find_weights(choice, RANDOM)
        source = f"--pretrain_choice {path}"
        state = clip_names(read_weights(path))
        clip = cls(at_resolution(sizes_of(state, f"{source}: not a CLIP vision transformer"), options))
        state["visual.positional_embedding"] = resize_positions(state["visual.positional_embedding"], clip.sizes.grid)
        load_strict(clip, state, source)
        clip.weights_file = path
        return clip

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], options: BackboneOptions, source: str) -> "CLIP":
        """See the base class."""
        return cls(at_resolution(sizes_of(state, f"{source}: no trained towers in it"), options))

    def encode_image(self, images_BCHW: Tensor) -> Encoded:
        """Normalised pixels to tokens and pooled features, with the prompts if there are any."""
        prompts = () if self.prompts is None else self.prompts.image()
        return self.visual(images_BCHW, prompts, self.with_attention)

    def encode_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Encoded:
        """Token ids to tokens and pooled features, with the prompts if there are any."""
        prompts = () if self.prompts is None else self.prompts.text()
        return self.text(ids_BL, lengths_B, prompts, self.with_attention)

    def blocks(self) -> Iterator[nn.Module]:
        """Those of the image tower, then those of the text tower."""
        for tower in (self.visual, self.text):
            yield from tower.transformer.resblocks


def at_resolution(sizes: ClipSizes, options: BackboneOptions) -> ClipSizes:
    """The same towers for another image size and stride."""
    stride = options.stride_size or sizes.patch_size
    if min(options.img_size) < sizes.patch_size:
        shown = " ".join(str(side) for side in options.img_size)
        raise UserError(f"--img_size {shown}: smaller than one patch of {sizes.patch_size} pixels")
    return replace(sizes, image_size=tuple(options.img_size), stride=stride)


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
        name = re.sub(r"\.in_proj_(weight|bias)$", r".in_proj.\1", name)
        ours[name] = value.float() if value.is_floating_point() else value
    return ours


_SHAPED = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "text.token_embedding.weight": 2,
    "text.text_projection": 2,
    "text.positional_embedding": 2,
}
"""weights that the sizes of the towers are read off, and how many dimensions each has"""


def sizes_of(state: Mapping[str, Tensor], complaint: str) -> ClipSizes:
    """Every size of the towers, read off a state dict with our key names; the image is assumed square.

    Raises:
        UserError: ``complaint``, and which weight of every CLIP vision transformer is missing or has another shape.
    """
    for name, dimensions in _SHAPED.items():
        if name not in state:
            found = ", ".join(list(state)[:5]) or "none"
            raise UserError(f"{complaint}, it has no weight {name!r}; its first keys are {found}")
        shape = tuple(state[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise UserError(f"{complaint}, its weight {name} has the shape {shape}")
    conv = state["visual.conv1.weight"]
    patch = conv.shape[-1]
    side = patch * round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    vocab_size, text_width = state["text.token_embedding.weight"].shape
    return ClipSizes(
        embed_dim=state["text.text_projection"].shape[1],
        image_size=(side, side),
        patch_size=patch,
        stride=patch,
        vision_width=conv.shape[0],
        vision_layers=layers_in(state, "visual.transformer.resblocks."),
        text_width=text_width,
        text_layers=layers_in(state, "text.transformer.resblocks."),
        vocab_size=vocab_size,
        context_length=state["text.positional_embedding"].shape[0],
    )


def resize_positions(positions_LW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1 + side * side, W), the class first, resized to a grid of (rows, columns), bilinear."""
    if positions_LW.shape[0] == grid[0] * grid[1] + 1 and grid[0] == grid[1]:
        return positions_LW
    side = round((positions_LW.shape[0] - 1) ** 0.5)
    if side * side + 1 != positions_LW.shape[0]:
        raise UserError(f"{positions_LW.shape[0]} image positions are not a square grid and a class position")
    grid_1WRC = positions_LW[1:].T.reshape(1, -1, side, side)
    resized_1WRC = F.interpolate(grid_1WRC, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions_LW[:1], resized_1WRC.flatten(2)[0].T])
