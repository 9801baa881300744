"""The mean of the weights of several checkpoints: ``python -m model.average RUN RUN --output FILE``."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoints.archives import read_state
from utils import UserError
from utils.command import Parser, run_command
from utils.files import replacing

PROGRAM = "python -m model.average"


def average(states: Mapping[Path, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts, computed in float64; what is no floating-point number must be equal in all.

    Raises:
        UserError: they are not of the same model; names the file and the weight.
    """
    (first, state), *others = states.items()
    for path, other in others:
        if odd := sorted(state.keys() ^ other.keys()):
            has = path if odd[0] in other else first
            raise UserError(f"{path}: not of the same model as {first}: only {has} has {odd[0]}")
        for name, value in other.items():
            if value.shape != state[name].shape:
                shapes = f"{tuple(value.shape)} and {tuple(state[name].shape)}"
                raise UserError(f"{path}: not of the same model as {first}: {name} has the shapes {shapes}")
            if not value.is_floating_point() and not torch.equal(value, state[name]):
                raise UserError(f"{path}: {name} is not a number that has a mean, and differs from that of {first}")
    return {name: _mean([each[name] for each in states.values()]) for name in state}


def _mean(values: Sequence[Tensor]) -> Tensor:
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([value.double() for value in values]).mean(dim=0).to(values[0].dtype)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Raises UserError, which names the file or flag."""
    parser = Parser(prog=PROGRAM, description="Average the weights of checkpoints of one model.")
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run directory (its best.pth), or a checkpoint"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    given = parser.parse_args(argv)
    paths = [run / "best.pth" if run.is_dir() else run for run in given.runs]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    if len(set(paths)) < 2:
        raise UserError(f"{paths[0]}: name at least two different checkpoints")
    mean = average({path: read_state(path) for path in paths})
    with replacing(given.output) as file:
        torch.save({"model": mean}, file)
    print(f"{given.output}: mean of {len(paths)} checkpoints; test it with test.py --checkpoint {given.output}")


if __name__ == "__main__":
    sys.argv[0] = PROGRAM  # what an error begins with; it would be average.py
    run_command(main)
