"""Checkpoints of the published ECCL program: its names of towers, LoRA and prompts, translated to ours."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TOWERS = {"image_encoder": "visual.", "text_encoder": "", "clip_model": ""}
"""its names to the prefix that OpenAI's state dict has for the same weights"""
_PROMPTS = (
    (r"^ctx$", "vectors.0", 0),
    (r"^compound_prompts_text\.(\d+)$", "vectors.{}", 1),
    (r"^proj\.(weight|bias)$", "to_image.0.{}", 0),
    (r"^compound_prompt_projections\.(\d+)\.(weight|bias)$", "to_image.{}.{}", 1),
)
"""pattern, our name, and what is added to the number in it: there, counting starts with the second block"""
_LORA = re.compile(r"(.*)\.lora_([AB])(?:_([qkvo]))?$")


def is_eccl(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of the published ECCL program (ICLF also has a text_encoder, beside a base_model)."""
    roots = {part for key in state for part in key.split(".")[:2]}
    return "image_encoder" in roots and "base_model" not in roots


def eccl_names(state: Mapping[str, Tensor], lora_is_merged: bool = True) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under OpenAI's names for the towers and ours for LoRA and prompts, and the keys of LoRA left out.

    The published program saves its weights with LoRA already added to them, so that it is left out here; where
    ``lora_is_merged`` is False it is kept.
    """
    names: dict[str, Tensor] = {}
    lora: dict[tuple[str, str], dict[str, Tensor]] = {}
    left_out = []
    for key, value in state.items():
        root, _, rest = key.removeprefix("module.").partition(".")
        if root == "prompt_learner":
            names[_prompt_name(rest) or key] = value
        elif found := _LORA.match(rest) if root in _TOWERS else None:
            layer, side, part = found.groups()
            tower = "visual" if root == "image_encoder" else "text"
            lora.setdefault((f"clip.{tower}.{layer}", side), {})[part or ""] = value
            left_out.append(key)
        elif root in _TOWERS:
            names[_TOWERS[root] + rest] = value
        else:
            names[key] = value
    if lora_is_merged:
        return names, left_out
    return {**names, **_fused(lora)}, []


def _prompt_name(rest: str) -> str | None:
    for pattern, name, offset in _PROMPTS:
        if found := re.match(pattern, rest):
            parts = [int(part) + offset if part.isdigit() else part for part in found.groups()]
            return "clip.prompts." + name.format(*parts)
    return None


def _fused(lora: Mapping[tuple[str, str], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """LoRA under our names, where q, k and v are one layer."""
    ours = {}
    for (layer, side), parts in lora.items():
        if "" in parts:
            ours[f"{layer}.lora_{side}"] = parts[""]
        else:
            ours[f"{layer}.in_proj.lora_{side}"] = torch.cat([parts[name] for name in "qkv"])
            ours[f"{layer}.out_proj.lora_{side}"] = parts["o"]
    return ours
