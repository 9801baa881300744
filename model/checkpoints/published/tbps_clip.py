"""Checkpoints of the published TBPS-CLIP: its names of the text tower, the scale and its head, translated to ours."""

from collections.abc import Mapping

from torch import Tensor

_TEXT = "encode_text."
_RENAMED = {"logit_scale": "parts.logit_scale.log_scale", "simclr_mlp": "heads.ss.mlp"}
"""root of a key to ours"""


def is_tbps_clip(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of the published TBPS-CLIP."""
    return any(key.removeprefix("module.").startswith(_TEXT) for key in state)


def tbps_clip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower under OpenAI's names, what CLIP has not under ours; other keys stay."""
    names = {}
    for key, value in state.items():
        name = key.removeprefix("module.").removeprefix(_TEXT)
        root, dot, below = name.partition(".")
        names[_RENAMED.get(root, root) + dot + below] = value
    return names
