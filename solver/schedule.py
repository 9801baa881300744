"""Learning-rate schedules, one factor per epoch."""

import math
from bisect import bisect_right
from dataclasses import dataclass

import torch

from utils import UserError
from utils.options import opt


@dataclass(frozen=True)
class ScheduleOptions:
    """Flags of the schedule."""

    num_epoch: int = opt(60, "epochs to train", least=1)
    lrscheduler: str = opt("cosine", "shape after the warm-up", choices=("cosine", "step", "exp", "poly", "linear"))
    warmup_epochs: int = opt(5, "epochs of warm-up", least=0)
    warmup_factor: float = opt(0.1, "first epoch's share of the learning rate")
    warmup_method: str = opt("linear", "shape of the warm-up", choices=("linear", "constant"))
    target_lr: float = opt(0.0, "learning rate at the end (cosine, poly)")
    power: float = opt(0.9, "base of exp and poly")
    milestones: tuple[int, ...] = opt((20, 50), "epochs after which step multiplies by --gamma")
    gamma: float = opt(0.1, "factor of step")

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(self.milestones):
            raise UserError(f"--milestones {' '.join(map(str, self.milestones))}: expected rising epochs")


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


class Schedule:
    """Sets the learning rate of every parameter group; a group keeps its full one under ``base_lr``."""

    def __init__(self, optimizer: torch.optim.Optimizer, options: ScheduleOptions) -> None:
        self._optimizer, self._options = optimizer, options
        self.num_epoch = options.num_epoch

    def set(self, epoch: int, step: int, steps: int) -> None:
        """Set the rates of the step that comes next; the present shapes change from epoch to epoch only.

        Args:
            epoch: 1 in the first epoch.
            step: steps done in it.
            steps: steps that it has.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(group["base_lr"], epoch, self._options)

    def rates(self) -> dict[str, float]:
        """The present rate of every group, by the rate at full height; groups that share that one share this."""
        return {f"{group['base_lr']:g}": float(group["lr"]) for group in self._optimizer.param_groups}
