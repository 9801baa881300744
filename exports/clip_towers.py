"""The towers of a run as a plain CLIP, which other programs know, or the reason why they are not one.

Shape letters: L positions, W width, D embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from exports.format import ExportedRun
from model.backbones.activations import QuickGELU
from model.backbones.clip import CLIP
from model.backbones.clip_tokenizer import ClipTokenizer
from model.backbones.text_cleaning import CleanedTokenizer
from model.backbones.towers import ImageTower, TextTower
from utils import UserError
from utils.inputs import Tokenizer

LOGIT_SCALE = 100.0
"""CLIP's, which the towers here have none of; it orders nothing differently"""


@dataclass(frozen=True)
class TowerShape:
    """What the weights of a tower do not say, and what they do, as configuration files want it."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    """quick_gelu, gelu or gelu_tanh"""
    eps: float
    """of the layer norms"""


@dataclass(frozen=True)
class PlainClip:
    """Both towers."""

    image: TowerShape
    text: TowerShape
    embed_dim: int
    image_size: tuple[int, int]
    patch_size: int
    grid: tuple[int, int]
    """rows and columns of patches"""
    context_length: int
    """tokens that a caption is truncated to; the text tower's positions behind it are left out"""
    vocab_size: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    resize_filter: str
    tokenizer: Tokenizer
    """CLIP's, or CLIP's over captions that are cleaned first"""
    state: Mapping[str, Tensor]
    """weights under our names, without the prefix of the backbone"""


def plain_clip(run: ExportedRun, name: str) -> PlainClip:
    """The towers of a run for the format ``name``.

    Raises:
        UserError: names what such a program cannot express, and the formats that can.
    """
    model, form = run.encoder.model, run.encoder.inputs
    backbone = model.backbone
    other = "; --format onnx can" if not model.attends_over_batch else ""
    refused = f"--format {name}: cannot express"
    if not isinstance(backbone, CLIP):
        raise UserError(f"{refused} the backbone {backbone.name}{other}")
    tokenizer = form.tokenizer.inner if isinstance(form.tokenizer, CleanedTokenizer) else form.tokenizer
    if not isinstance(tokenizer, ClipTokenizer):
        raise UserError(f"{refused} a tokenizer that is not CLIP's (--tokenizer){other}")
    if model.parsing is not None and model.parsing.stages:
        raise UserError(f"{refused} PHP's parsing ({' and '.join(model.parsing.stages)}){other}")
    if model.token_selection is not None:
        raise UserError(f"{refused} RDE's second embedding (--select_ratio){other}")
    if backbone.prompts is not None:
        raise UserError(f"{refused} learned prompts (--prompt_depth){other}")
    state = {key.removeprefix(f"{backbone.name}."): value for key, value in model.state_dict().items()}
    if strange := [key for key in state if key.split(".")[0] not in ("visual", "text")]:
        raise UserError(f"{refused} weights that are in neither tower, such as {strange[0]}{other}")
    sizes = backbone.sizes
    if sizes.stride != sizes.patch_size:
        raise UserError(f"{refused} patches that overlap (--stride_size {sizes.stride}){other}")
    positions = "text.positional_embedding"
    return PlainClip(
        image=_shape_of(backbone.visual, f"{refused} the image tower's"),
        text=_shape_of(backbone.text, f"{refused} the text tower's"),
        embed_dim=sizes.embed_dim,
        image_size=form.image_size,
        patch_size=sizes.patch_size,
        grid=sizes.grid,
        context_length=form.text_length,
        vocab_size=sizes.vocab_size,
        pixel_mean=form.pixel_mean,
        pixel_std=form.pixel_std,
        resize_filter=form.resize_filter,
        tokenizer=form.tokenizer,
        state={**state, positions: state[positions][: form.text_length]},
    )


def _shape_of(tower: ImageTower | TextTower, refused: str) -> TowerShape:
    blocks = tower.transformer.resblocks
    first = blocks[0]
    eps = {layer.eps for layer in tower.modules() if isinstance(layer, nn.LayerNorm)}
    if len(eps) != 1:
        raise UserError(f"{refused} layer norms with different eps: {', '.join(map(str, sorted(eps)))}")
    return TowerShape(
        width=first.mlp.c_fc.in_features,
        layers=len(blocks),
        heads=first.attn.heads,
        mlp_width=first.mlp.c_fc.out_features,
        activation=_activation(first.mlp.gelu, refused),
        eps=eps.pop(),
    )


def _activation(layer: nn.Module, refused: str) -> str:
    if isinstance(layer, QuickGELU):
        return "quick_gelu"
    if isinstance(layer, nn.GELU):
        return "gelu_tanh" if layer.approximate == "tanh" else "gelu"
    raise UserError(f"{refused} activation {type(layer).__name__}")
