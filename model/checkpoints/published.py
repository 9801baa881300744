"""Key names of checkpoints that the published programs wrote, translated to ours."""

import logging
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from model.backbones.clip import clip_names
from model.checkpoints.published_eccl import eccl_names, is_eccl

log = logging.getLogger("descry")

_OURS = ("clip", "parts", "heads", "parsing")
_CLIP_ROOTS = ("visual", "token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
_RENAMED = {
    "cross_attn": "parts.cross_former.attn",
    "cross_modal_transformer": "parts.cross_former.transformer",
    "ln_pre_t": "parts.cross_former.ln_query",
    "ln_pre_i": "parts.cross_former.ln_other",
    "ln_post": "parts.cross_former.ln_out",
    "classifier": "heads.id.classifier",
    "mlm_head": "heads.mlm",
    "img_memory": "heads.memory_soft.image_bank",
    "txt_memory": "heads.memory_soft.text_bank",
    "itm_head": "heads.itm.head",
    "temp": "heads.itm.temp",
    "safl": "parsing.crfm",
    "shared_transformer": "parsing.efp",
}
PARSING_ROOTS = ("safl", "shared_transformer")
_INSIDE_PARSING = {"feed_forward": "moe", "comb_param": "task", "expert_count_accum": "expert_count"}
"""path components that PHP names otherwise"""
_IGNORED = ("logit_scale",)
"""keys without a meaning for training or testing here"""
_BERT = ("text_encoder", "text_feats_2_bert")
"""ICLF's model carries a BERT that it never uses"""
_IGNORED_INSIDE_PARSING = ("pos_embeding", "token_count_accum")
"""a parameter that PHP never uses, and a number that follows from another"""


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
    for key, value in _without_bert(state).items():
        parts = _unwrapped(key.split("."))
        if not parts:
            unknown.append(key)
        elif parts[0] in _OURS:
            ours[".".join(parts)] = value.float() if value.is_floating_point() else value
        elif parts[0] == "base_model":
            clip[".".join(parts[1:])] = value
        elif parts[0] in _CLIP_ROOTS:
            clip[".".join(parts)] = value
        elif parts[0] in PARSING_ROOTS:
            if parts[-1] not in _IGNORED_INSIDE_PARSING:
                parts = [_RENAMED[parts[0]], *(_INSIDE_PARSING.get(part, part) for part in parts[1:])]
                ours.update(clip_names({".".join(parts): value}))
        elif parts[0] not in _IGNORED:
            ours.update(clip_names({".".join((_RENAMED[parts[0]], *parts[1:])): value}))
    ours.update({f"clip.{key}": value for key, value in clip_names(clip).items()})
    return _stack_experts(ours), unknown


def has_published_parsing(state: Mapping[str, Tensor]) -> bool:
    """Whether the published PHP wrote this checkpoint, whose experts then attend across the batch."""
    return any(_unwrapped(key.split("."))[:1] == [root] for key in state for root in PARSING_ROOTS)


def _stack_experts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``experts.N.LAYER`` of all experts of a block to one tensor ``experts.LAYER``."""
    stacks: dict[str, dict[int, Tensor]] = {}
    others = {}
    for key, value in state.items():
        if found := re.fullmatch(r"(parsing\..*\.experts)\.(\d+)\.(.*)", key):
            stacks.setdefault(f"{found[1]}.{found[3]}", {})[int(found[2])] = value
        else:
            others[key] = value
    return others | {key: torch.stack([row for _, row in sorted(rows.items())]) for key, rows in stacks.items()}


def _without_bert(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Leave out ICLF's BERT; in a checkpoint without ``base_model`` the text tower itself is called text_encoder."""
    roots = {key: set(key.split(".")[:3]) for key in state}
    bert = {key for key in state if roots[key].intersection(_BERT)}
    if not bert or not any("base_model" in root for root in roots.values()):
        return state
    log.info("ignored: the unused BERT of a published ICLF run (%s)", ", ".join(f"{name}.*" for name in _BERT))
    return {key: value for key, value in state.items() if key not in bert}


def _unwrapped(parts: list[str]) -> list[str]:
    known = {*_OURS, "base_model", *_CLIP_ROOTS, *_RENAMED, *_IGNORED}
    starts = [i for i, part in enumerate(parts) if part in known]
    return parts[starts[0] :] if starts else []
