"""Learning-rate schedules, one factor per epoch."""

import math
from bisect import bisect_right
from dataclasses import dataclass

import torch

from utils.options import opt


@dataclass(frozen=True)
class ScheduleOptions:
    """Flags of the schedule."""

    num_epoch: int = opt(60, "epochs to train")
    lrscheduler: str = opt("cosine", "shape after the warm-up", choices=("cosine", "step", "exp", "poly", "linear"))
    warmup_epochs: int = opt(5, "epochs of warm-up")
    warmup_factor: float = opt(0.1, "first epoch's share of the learning rate")
    warmup_method: str = opt("linear", "how the warm-up rises", choices=("linear", "constant"))
    target_lr: float = opt(0.0, "learning rate at the end (cosine, poly)")
    power: float = opt(0.9, "base of exp and poly")
    milestones: tuple[int, ...] = opt((20, 50), "epochs after which step multiplies by --gamma")
    gamma: float = opt(0.1, "factor of step")

    def __post_init__(self) -> None:
        if self.num_epoch < 1:
            raise ValueError(f"--num_epoch {self.num_epoch}: expected at least 1")
        if self.warmup_epochs < 0:
            raise ValueError(f"--warmup_epochs {self.warmup_epochs}: expected 0 or more")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"--milestones {' '.join(map(str, self.milestones))}: expected rising epochs")


def learning_rate(base_lr: float, epoch: int, options: ScheduleOptions) -> float:
    """The learning rate of an epoch.

    Args:
        base_lr: of the parameter group, at full height.
        epoch: 1 in the first epoch.
        options: shape of the schedule.
    """
    done = epoch - 1
    if done < options.warmup_epochs:
        if options.warmup_method == "constant":
            return base_lr * options.warmup_factor
        rise = done / options.warmup_epochs
        return base_lr * (options.warmup_factor * (1 - rise) + rise)
    if options.lrscheduler == "step":
        return base_lr * options.gamma ** bisect_right(options.milestones, done)
    share = (done - options.warmup_epochs) / max(options.num_epoch - options.warmup_epochs, 1)
    if options.lrscheduler == "exp":
        return base_lr * options.power**share
    if options.lrscheduler == "linear":
        return base_lr * (1 - share)
    height = (1 + math.cos(math.pi * share)) / 2 if options.lrscheduler == "cosine" else options.power ** (1 - share)
    return options.target_lr + (base_lr - options.target_lr) * height


def set_epoch(optimizer: torch.optim.Optimizer, epoch: int, options: ScheduleOptions) -> None:
    """Give every parameter group its learning rate of this epoch; a group keeps its full one under ``base_lr``."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(group["base_lr"], epoch, options)
