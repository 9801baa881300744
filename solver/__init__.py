"""The optimiser, its parameter groups by role, and the learning-rate schedule."""

from collections.abc import Iterable

import torch
from torch import nn

from solver.optimizer import SolverOptions, build_optimizer
from solver.schedule import Schedule, ScheduleOptions
from utils.options import GetOptions


def solver_options() -> dict[str, list[type]]:
    """Titles and option dataclasses of optimiser and schedule, for the parser."""
    return {"optimiser": [SolverOptions, ScheduleOptions]}


def build_solver(
    parameters: Iterable[tuple[str, nn.Parameter, str]], get: GetOptions
) -> tuple[torch.optim.Optimizer, Schedule]:
    """Optimiser and schedule over (name, parameter, role) triples.

    Raises:
        UserError: there is nothing to train.
    """
    optimizer = build_optimizer(parameters, get(SolverOptions))
    return optimizer, Schedule(optimizer, get(ScheduleOptions))
