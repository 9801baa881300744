"""Key names of checkpoints that the published programs wrote, translated to ours: one file per system."""

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from model.backbones import BACKBONES
from model.backbones.clip import clip_names
from model.checkpoints.published import dgcmia, eccl, iclf, irra, php, rde, tbps_clip

log = logging.getLogger("descry")

_OURS = (*BACKBONES, "parts", "heads", "parsing", "token_selection")
_CLIP_ROOTS = ("visual", "token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
_IGNORED = ("logit_scale",)
"""keys without a meaning for training or testing here"""


def our_names(state: Mapping[str, Tensor], lora_is_merged: bool = True) -> tuple[dict[str, Tensor], list[str]]:
    """A checkpoint's weights under our names, whoever wrote it, and the keys that no rule knows.

    Wrappers before the first name that we know (``module.``, ``model.``) are dropped, and a bare CLIP state dict counts
    as the towers. Floating point values become float32. ``lora_is_merged``: see :func:`eccl.eccl_names`.
    """
    if eccl.is_eccl(state):
        state, merged = eccl.eccl_names(state, lora_is_merged)
        if merged:
            log.info("LoRA is merged into the weights already; %d tensors of it are left out", len(merged))
    if tbps_clip.is_tbps_clip(state):
        state = tbps_clip.tbps_clip_names(state)
    renamed = {**irra.RENAMED, **dgcmia.RENAMED, **iclf.renamed(state)}
    known = {*_OURS, "base_model", *_CLIP_ROOTS, *renamed, *php.ROOTS, *rde.ROOTS, *_IGNORED}
    ours: dict[str, Tensor] = {}
    clip: dict[str, Tensor] = {}
    unknown = []
    for key, value in iclf.without_bert(state).items():
        parts = _unwrapped(key.split("."), known) or [""]
        root, *below = parts
        if not root:
            unknown.append(key)
        elif root in _OURS:
            ours[".".join(parts)] = value.float() if value.is_floating_point() else value
        elif root == "base_model":
            clip[".".join(below)] = value
        elif root in _CLIP_ROOTS:
            clip[".".join(parts)] = value
        elif root in php.ROOTS:
            if name := php.our_key(parts):
                ours.update(clip_names({name: value}))
        elif root in rde.ROOTS:
            if name := rde.our_key(parts):
                ours[name] = value.float() if value.is_floating_point() else value
        elif root in renamed:
            ours.update(clip_names({".".join((renamed[root], *below)): value}))
    ours.update({f"clip.{key}": value for key, value in clip_names(clip).items()})
    return php.stack_experts(ours), unknown


def has_published_parsing(state: Mapping[str, Tensor]) -> bool:
    """Whether the published PHP wrote this checkpoint, whose experts then attend across the batch."""
    roots = {*_OURS, *php.ROOTS}
    return any(_unwrapped(key.split("."), roots)[:1] in ([root] for root in php.ROOTS) for key in state)


def _unwrapped(parts: Sequence[str], known: Collection[str]) -> list[str]:
    return list(itertools.dropwhile(lambda part: part not in known, parts))
