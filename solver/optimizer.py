"""From parameters and the roles their modules declare to a fused optimiser with few groups."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from solver.muon import MuonAdamW, takes_muon
from utils import UserError
from utils.options import opt


@dataclass(frozen=True)
class SolverOptions:
    """Flags of the optimiser."""

    optimizer: str = opt(
        "Adam",
        "optimiser; Muon: for the matrices of towers and cross former, with AdamW for the rest",
        choices=("Adam", "AdamW", "SGD", "Muon"),
    )
    lr: float = opt(1e-5, "learning rate", above=0)
    weight_decay: float = opt(4e-5, "weight decay", least=0)
    weight_decay_bias: float = opt(0.0, "weight decay of biases")
    decay: str = opt(
        "all",
        "what --weight_decay is for: all parameters but biases, or only matrices (of two and more dimensions: no bias, "
        "norm, class embedding), as TBPS-CLIP was published",
        choices=("all", "matrices"),
    )
    lr_factor: float = opt(5.0, "learning rate factor of cross former, classifier and mlm head")
    bias_lr_factor: float | None = opt(2.0, "learning rate factor of biases; null in a yaml: that of their weights")
    alpha: float = opt(0.9, "first beta of Adam and AdamW (also beside Muon)")
    beta: float = opt(0.999, "second beta of Adam and AdamW (also beside Muon)")
    eps: float | None = opt(None, "added to the denominator of Adam and AdamW [1e-3 and 1e-8]", above=0)
    tse_lr: float = opt(1e-3, "learning rate of RDE's second embedding", above=0)
    lora_lr: float = opt(2.5e-4, "learning rate of LoRA", above=0)
    sgd_momentum: float = opt(0.9, "momentum of SGD")
    momentum: float | None = opt(
        None, "published name of --bank_momentum with a loss that has banks, else of --sgd_momentum"
    )


_ALIKE = ("lora", "prompt")
"""roles in which a bias is treated like any other parameter, as published"""


def lr_and_decay(name: str, dimensions: int, role: str, options: SolverOptions) -> tuple[float, float]:
    """Learning rate and weight decay of one parameter, by its role, its dimensions and whether it is a bias.

    Raises:
        ValueError: no rule knows the role.
    """
    bias = name.endswith("bias") and role not in _ALIKE
    decay = options.weight_decay_bias if bias else options.weight_decay
    if role == "scale" or (options.decay == "matrices" and dimensions < 2):
        decay = 0.0
    has_own_factor = bias and options.bias_lr_factor is not None
    rules = {
        "plain": options.lr * (options.bias_lr_factor if has_own_factor else 1.0),
        "cross": options.lr * (options.bias_lr_factor if has_own_factor else options.lr_factor),
        "head": options.lr * options.lr_factor,
        "tse": options.tse_lr,
        "lora": options.lora_lr,
        "prompt": options.lr,
        "scale": options.lr,
    }
    if role not in rules:
        raise ValueError(f"parameter {name}: no optimiser rule for the role {role!r}; rules: {', '.join(rules)}")
    return rules[role], decay


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter, str]], options: SolverOptions
) -> torch.optim.Optimizer:
    """An optimiser over (name, parameter, role) triples, one group per (learning rate, decay)."""
    muon: dict[tuple[float, float], list[nn.Parameter]] = {}
    others: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, role in parameters:
        groups = muon if options.optimizer == "Muon" and takes_muon(name, parameter.dim(), role) else others
        groups.setdefault(lr_and_decay(name, parameter.dim(), role, options), []).append(parameter)
    if not muon and not others:
        raise UserError(
            "nothing to train: the towers are frozen (--freeze_towers), and none of --loss_names has layers of its "
            "own; add a loss that has some, such as itm or id"
        )
    members, betas = _members(others), (options.alpha, options.beta)
    if options.optimizer == "Muon":
        return MuonAdamW(_members(muon), members, options.lr, betas, options.eps or 1e-8)
    if options.optimizer == "SGD":
        return torch.optim.SGD(members, lr=options.lr, momentum=options.sgd_momentum, fused=True)
    if options.optimizer == "AdamW":
        return torch.optim.AdamW(members, lr=options.lr, betas=betas, eps=options.eps or 1e-8, fused=True)
    return torch.optim.Adam(members, lr=options.lr, betas=betas, eps=options.eps or 1e-3, fused=True)


def _members(groups: dict[tuple[float, float], list[nn.Parameter]]) -> list[dict[str, Any]]:
    return [
        {"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in sorted(groups.items())
    ]
