"""Key names of checkpoints that the published programs wrote, translated to ours."""

import logging
from collections.abc import Mapping

from torch import Tensor

from model.published_eccl import eccl_names, is_eccl
from model.weights import clip_names

log = logging.getLogger("descry")

_OURS = ("clip", "parts", "heads")
_CLIP_ROOTS = ("visual", "token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
_RENAMED = {
    "cross_attn": "parts.cross_former.attn",
    "cross_modal_transformer": "parts.cross_former.transformer",
    "ln_pre_t": "parts.cross_former.ln_query",
    "ln_pre_i": "parts.cross_former.ln_other",
    "ln_post": "parts.cross_former.ln_out",
    "classifier": "heads.id.classifier",
    "mlm_head": "heads.mlm",
}
_IGNORED = ("logit_scale",)
"""keys without a meaning for training or testing here"""


def our_names(state: Mapping[str, Tensor], lora_is_merged: bool = True) -> tuple[dict[str, Tensor], list[str]]:
    """Translate a checkpoint's keys, whoever wrote it.

    Wrappers before the first name that we know (``module.``, ``model.``) are dropped, and a bare CLIP state dict counts
    as the towers. Floating point values become float32.

    Args:
        state: weights by the names they were saved under.
        lora_is_merged: in a published ECCL checkpoint, whose LoRA is then left out.

    Returns:
        weights under our names, and the keys that no rule knows.
    """
    if is_eccl(state):
        state, merged = eccl_names(state, lora_is_merged)
        if merged:
            log.info("LoRA is merged into the weights already; %d tensors of it are left out", len(merged))
    ours: dict[str, Tensor] = {}
    clip: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        parts = _unwrapped(key.split("."))
        if not parts:
            unknown.append(key)
        elif parts[0] in _OURS:
            ours[".".join(parts)] = value.float() if value.is_floating_point() else value
        elif parts[0] == "base_model":
            clip[".".join(parts[1:])] = value
        elif parts[0] in _CLIP_ROOTS:
            clip[".".join(parts)] = value
        elif parts[0] not in _IGNORED:
            ours.update(clip_names({".".join((_RENAMED[parts[0]], *parts[1:])): value}))
    ours.update({f"clip.{key}": value for key, value in clip_names(clip).items()})
    return ours, unknown


def _unwrapped(parts: list[str]) -> list[str]:
    known = {*_OURS, "base_model", *_CLIP_ROOTS, *_RENAMED, *_IGNORED}
    starts = [i for i, part in enumerate(parts) if part in known]
    return parts[starts[0] :] if starts else []
