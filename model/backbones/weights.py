"""From weights under our names to towers of their sizes; what CLIP and SigLIP have in common."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from model.backbones.architecture import Architecture, architecture_of
from model.backbones.file_tokenizer import tokenizer_of
from model.backbones.positions import resize_positions, stretch_positions, text_positions
from model.backbones.pretrained import Pretrained, refuse_unknown
from model.backbones.sizes import ClipSizes
from model.backbones.spec import Backbone, BackboneOptions, BackboneSpec
from model.checkpoints.archives import layers_in, load_strict
from utils import UserError

Towers = TypeVar("Towers", bound=Backbone)
"""a backbone that is made from sizes, an architecture and a tokenizer"""


def towers_from(
    kind: type[Towers], given: Pretrained, state: dict[str, Tensor], options: BackboneOptions, has_class: bool = True
) -> Towers:
    """Towers filled with weights that a run starts from.

    Args:
        kind: of backbone.
        given: the file.
        state: its weights under our names; position tables are resized in place.
        options: image size and text length.
        has_class: whether the image tower has a class token.

    Raises:
        UserError: the weights do not say what they are, are others than named, or do not fit.
    """
    sizes = sizes_of(state, f"{given.source}: not weights of a {kind.__name__} vision transformer", has_class)
    if given.architecture is None:
        refuse_unknown(given, sizes)
    given.architecture.check(sizes, given.source)
    sizes = at_text_length(at_resolution(sizes, options), options)
    form = given.architecture.with_pixels(options)
    towers = kind(sizes, form, tokenizer_of(given.architecture, options, sizes.vocab_size))
    image, text = "visual.positional_embedding", "text.positional_embedding"
    state[image] = resize_positions(state[image], sizes.grid, has_class)
    state[text] = stretch_positions(state[text], sizes.context_length, options.text_stretch)
    load_strict(towers, state, given.source)
    towers.weights_file = given.path
    scale = given.state.get("logit_scale", given.state.get("module.logit_scale"))
    if scale is not None and scale.numel() == 1:
        towers.spec = replace(towers.spec, log_scale=float(scale))
    return towers


def towers_for(
    kind: type[Towers], state: Mapping[str, Tensor], options: BackboneOptions, source: str, has_class: bool = True
) -> Towers:
    """Towers of the sizes that a checkpoint's weights show, not filled with them; see :func:`towers_from`.

    ``source``: what to call the checkpoint in the UserError about weights that are missing or of another architecture.
    """
    sizes = sizes_of(state, f"{source}: no trained towers in it", has_class)
    architecture = _trained_architecture(kind.name, sizes, options, source)
    form = architecture.with_pixels(options)
    return kind(at_resolution(sizes, options), form, tokenizer_of(architecture, options, sizes.vocab_size))


def spec_of(sizes: ClipSizes, architecture: Architecture, text_is_causal: bool, prompt_blocks: int) -> BackboneSpec:
    """What the rest of the program knows about towers of these sizes."""
    return BackboneSpec(
        embed_dim=sizes.embed_dim,
        vocab_size=sizes.vocab_size,
        image_size=sizes.image_size,
        context_length=sizes.context_length,
        text_is_causal=text_is_causal,
        pixel_mean=architecture.pixel_mean,
        pixel_std=architecture.pixel_std,
        eval_filter=architecture.eval_filter,
        text_width=sizes.text_width,
        image_width=sizes.vision_width,
        prompt_blocks=prompt_blocks,
    )


def at_resolution(sizes: ClipSizes, options: BackboneOptions) -> ClipSizes:
    """The same towers for another image size and stride."""
    stride = options.stride_size or sizes.patch_size
    if min(options.img_size) < sizes.patch_size:
        shown = " ".join(str(side) for side in options.img_size)
        raise UserError(f"--img_size {shown}: smaller than one patch of {sizes.patch_size} pixels")
    return replace(sizes, image_size=tuple(options.img_size), stride=stride)


def at_text_length(sizes: ClipSizes, options: BackboneOptions) -> ClipSizes:
    """The same towers with room for ``--text_length``. Raises UserError where that is above what they take."""
    return replace(sizes, context_length=text_positions(sizes.context_length, options))


def _trained_architecture(family: str, sizes: ClipSizes, options: BackboneOptions, source: str) -> Architecture:
    """The architecture of towers in a checkpoint, which the run's ``--pretrain_choice`` says.

    Raises:
        UserError: that is not one of these towers.
    """
    architecture = architecture_of(options.pretrain_choice)
    if architecture.family != family:
        raise UserError(
            f"--pretrain_choice {options.pretrain_choice}: {source} holds towers of {family}, not of "
            f"{architecture.family}; give the --pretrain_choice of its training"
        )
    architecture.check(sizes, f"--pretrain_choice {options.pretrain_choice}: {source}", trained=True)
    return architecture


_SHAPED = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "text.token_embedding.weight": 2,
    "text.text_projection": 2,
    "text.positional_embedding": 2,
}
"""weights that the sizes of the towers are read off, and how many dimensions each has"""


def sizes_of(state: Mapping[str, Tensor], complaint: str, has_class: bool = True) -> ClipSizes:
    """Every size of the towers, read off a state dict with our key names; the image is assumed square.

    ``has_class``: whether a class token has a position beside the patches.

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
    side = patch * round((len(state["visual.positional_embedding"]) - has_class) ** 0.5)
    vision, text = "visual.transformer.resblocks.", "text.transformer.resblocks."
    vocab_size, text_width = state["text.token_embedding.weight"].shape
    return ClipSizes(
        embed_dim=state["text.text_projection"].shape[1],
        image_size=(side, side),
        patch_size=patch,
        stride=patch,
        vision_width=conv.shape[0],
        vision_layers=layers_in(state, vision),
        text_width=text_width,
        text_layers=layers_in(state, text),
        vocab_size=vocab_size,
        context_length=state["text.positional_embedding"].shape[0],
        vision_hidden=_hidden(state, vision, conv.shape[0]),
        text_hidden=_hidden(state, text, text_width),
    )


def _hidden(state: Mapping[str, Tensor], prefix: str, width: int) -> int | None:
    """Hidden channels of the perceptrons in blocks below a prefix; None where they are 4 times the width."""
    bias = state.get(f"{prefix}0.mlp.c_fc.bias")
    return None if bias is None or len(bias) == 4 * width else len(bias)
