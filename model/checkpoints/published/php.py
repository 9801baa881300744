"""PHP's parsing, whose experts are modules of their own there and rows of one tensor here."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

ROOTS = {"safl": "parsing.crfm", "shared_transformer": "parsing.efp"}
"""root of a key to ours"""
_INSIDE = {"feed_forward": "moe", "comb_param": "task", "expert_count_accum": "expert_count"}
_IGNORED = ("pos_embeding", "token_count_accum")
"""a parameter that PHP never uses, and a number that follows from another"""


def our_key(parts: Sequence[str]) -> str | None:
    """A key below one of :data:`ROOTS`, split at its dots; None for what has no meaning here."""
    if parts[-1] in _IGNORED:
        return None
    return ".".join([ROOTS[parts[0]], *(_INSIDE.get(part, part) for part in parts[1:])])


def stack_experts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``experts.N.LAYER`` of all experts of a block to one tensor ``experts.LAYER``."""
    stacks: dict[str, dict[int, Tensor]] = {}
    others = {}
    for key, value in state.items():
        if found := re.fullmatch(r"(parsing\..*\.experts)\.(\d+)\.(.*)", key):
            stacks.setdefault(f"{found[1]}.{found[3]}", {})[int(found[2])] = value
        else:
            others[key] = value
    return others | {key: torch.stack([row for _, row in sorted(rows.items())]) for key, rows in stacks.items()}
