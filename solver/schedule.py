"""Learning-rate schedules, from epoch to epoch or from step to step."""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

import torch

from utils import UserError
from utils.options import opt


@dataclass(frozen=True)
class ScheduleOptions:
    """Flags of the schedule."""

    num_epoch: int = opt(60, "epochs to train", least=1)
    num_steps: int = opt(0, "steps to train, in place of --num_epoch; 0: as that says", least=0)
    schedule_per: str = opt(
        "epoch", "whether the learning rate changes from epoch to epoch or from step to step", choices=("epoch", "step")
    )
    lrscheduler: str = opt("cosine", "shape after the warm-up", choices=("cosine", "step", "exp", "poly", "linear"))
    warmup_epochs: int = opt(5, "epochs of warm-up", least=0)
    warmup_steps: int = opt(0, "steps of warm-up, in place of --warmup_epochs; 0: as that says", least=0)
    warmup_factor: float = opt(0.1, "first epoch's share of the learning rate")
    warmup_method: str = opt("linear", "shape of the warm-up", choices=("linear", "constant"))
    target_lr: float = opt(
        0.0,
        "learning rate at the end (cosine, poly), of every parameter; with --schedule_per step of those with the "
        "factor 1",
    )
    power: float = opt(0.9, "base of exp and poly")
    milestones: tuple[int, ...] = opt((20, 50), "epochs after which step multiplies by --gamma")
    gamma: float = opt(0.1, "factor of step")

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(self.milestones):
            raise UserError(f"--milestones {' '.join(map(str, self.milestones))}: expected rising epochs")


def learning_rate(base_lr: float, epoch: int, options: ScheduleOptions) -> float:
    """The learning rate of an epoch (from 1 on), for a parameter group with ``base_lr`` at full height."""
    done = epoch - 1
    if done < options.warmup_epochs:
        return _warming_up(base_lr, done / options.warmup_epochs, options)
    return _after_warmup(base_lr, done, options.target_lr, options)


def learning_rate_of_step(
    base_lr: float, target_lr: float, epoch: int, step: int, steps: int, options: ScheduleOptions
) -> float:
    """The learning rate after ``step`` of the ``steps`` of an epoch (from 1 on).

    Both the last step of the warm-up and the one after it have the full rate, as TBPS-CLIP was published; a warm-up of
    a single step stays at its start.

    Args:
        base_lr: of the parameter group, at full height.
        target_lr: of the parameter group, at the end.
        epoch, step, steps: see above.
        options: shape of the schedule.
    """
    done = epoch - 1 + step / steps
    if done < options.warmup_epochs:
        rise = ((epoch - 1) * steps + step) / max(options.warmup_epochs * steps - 1, 1)
        return _warming_up(base_lr, min(rise, 1.0), options)
    return _after_warmup(base_lr, done, target_lr, options)


def _warming_up(base_lr: float, rise: float, options: ScheduleOptions) -> float:
    if options.warmup_method == "constant":
        return base_lr * options.warmup_factor
    return base_lr * (options.warmup_factor * (1 - rise) + rise)


def _after_warmup(base_lr: float, done: float, target_lr: float, options: ScheduleOptions) -> float:
    """The learning rate after ``done`` epochs."""
    if options.lrscheduler == "step":
        return base_lr * options.gamma ** bisect_right(options.milestones, done)
    share = (done - options.warmup_epochs) / max(options.num_epoch - options.warmup_epochs, 1)
    if options.lrscheduler == "exp":
        return base_lr * options.power**share
    if options.lrscheduler == "linear":
        return base_lr * (1 - share)
    height = (1 + math.cos(math.pi * share)) / 2 if options.lrscheduler == "cosine" else options.power ** (1 - share)
    return target_lr + (base_lr - target_lr) * height


class Schedule:
    """Sets the learning rate of every parameter group; a group keeps its full one under ``base_lr``."""

    def __init__(self, optimizer: torch.optim.Optimizer, options: ScheduleOptions) -> None:
        self._optimizer, self._options = optimizer, options
        self._lr: float = optimizer.defaults["lr"]
        self.num_steps, self.num_epoch = options.num_steps, options.num_epoch
        self._epoch_steps: int | None = None

    def plan(self, epoch_steps: int) -> None:
        """Fit what is given in steps to epochs of so many steps; the last one may be shorter."""
        changed = {}
        if self.num_steps:
            changed["num_epoch"] = self.num_steps / epoch_steps
            self.num_epoch, self._epoch_steps = math.ceil(self.num_steps / epoch_steps), epoch_steps
        if self._options.warmup_steps:
            changed["warmup_epochs"] = self._options.warmup_steps / epoch_steps
        self._options = replace(self._options, **changed)

    def set(self, epoch: int, step: int, steps: int) -> None:
        """Set the rates of the step that comes next.

        Args:
            epoch: 1 in the first epoch.
            step: steps done in it.
            steps: steps that it has.
        """
        options, steps = self._options, self._epoch_steps or steps
        for group in self._optimizer.param_groups:
            base_lr = group["base_lr"]
            if options.schedule_per == "step":
                target_lr = options.target_lr * base_lr / self._lr  # the group's factor holds at the end as well
                group["lr"] = learning_rate_of_step(base_lr, target_lr, epoch, step, steps, options)
            else:
                group["lr"] = learning_rate(base_lr, epoch, options)

    def rates(self) -> dict[str, float]:
        """The present rate of every group, by the rate at full height; groups that share that one share this."""
        return {f"{group['base_lr']:g}": float(group["lr"]) for group in self._optimizer.param_groups}
