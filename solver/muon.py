"""Muon for the matrices inside a network, AdamW for everything else, as one optimiser."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def takes_muon(name: str, dimensions: int, role: str) -> bool:
    """Whether a parameter is a matrix between hidden features, which is what Muon was made for.

    Not embeddings, whose rows stand alone, nor classifiers, low-rank factors, prompts and all that is no matrix.
    """
    return dimensions == 2 and role in ("plain", "cross", "tse") and "embedding" not in name


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024): the momentum of a matrix, made orthogonal, is its step.

    Steps are scaled to the root mean square of AdamW's (Liu et al., 2025), so that both parts share one learning rate.
    Both are PyTorch's own.
    """

    def __init__(
        self,
        muon_groups: Iterable[Mapping[str, Any]],
        adamw_groups: Iterable[Mapping[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """Parameter groups of each part, with ``lr`` and ``weight_decay``; ``betas`` and ``eps`` are AdamW's."""
        self.parts: list[torch.optim.Optimizer] = []
        """Muon and AdamW, of which one may be missing"""
        if muon_groups := list(muon_groups):
            self.parts.append(torch.optim.Muon(muon_groups, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if adamw_groups := list(adamw_groups):
            self.parts.append(torch.optim.AdamW(adamw_groups, lr=lr, betas=betas, eps=eps, fused=True))
        self.defaults = {"lr": lr}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both parts, which may be changed."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        """By parameter."""
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """See PyTorch."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step of every parameter that has a gradient."""
        assert closure is None, "a step with a closure would be computed twice"
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both parts."""
        return {type(part).__name__: part.state_dict() for part in self.parts}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Undo :meth:`state_dict`. Raises KeyError and ValueError where it is of other parameters."""
        for part in self.parts:
            part.load_state_dict(state_dict[type(part).__name__])
