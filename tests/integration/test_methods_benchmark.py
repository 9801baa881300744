"""The benchmark of all systems: its flags are flags of train.py, and its search finds the top of a hill."""

import argparse
from pathlib import Path

import pytest

import train
from benchmarks import methods
from model.build import LossOptions
from model.checkpoints.finetune import FinetuneOptions
from model.losses.itc import ITCOptions
from solver.optimizer import SolverOptions
from solver.schedule import ScheduleOptions
from utils.files import read_yaml


@pytest.fixture
def args(tmp_path: Path) -> argparse.Namespace:
    (tmp_path / "start.pth").touch()
    return argparse.Namespace(
        start=tmp_path / "start.pth",
        root_dir=tmp_path,
        out=tmp_path,
        difficulty="hard",
        train_ids=1500,
        epochs=2,
        seeds=[1, 2],
        factors=[0.1, 0.333, 1.0, 3.0, 10.0],
    )


@pytest.mark.parametrize("name", methods.NAMES)
def test_every_system_can_be_trained(name: str, args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(methods, "pretrained", lambda loss, _: args.out / f"{loss}.pth")
    flags = methods.flags_of(name, "a fifth of the captions exchanged", 4, 2, args)
    options = train.read_flags([*flags, *methods.rates(name, 3.0)])
    assert options.get(SolverOptions).lr == pytest.approx(9e-4)
    assert options.get(ScheduleOptions).num_epoch == 4
    assert options.get(SolverOptions).optimizer == ("Muon" if methods.system_of(name) == methods.OURS else "AdamW")
    start = args.out / f"{name[-3:]}.pth" if name in methods.PRETRAINED else args.start
    assert options.get(FinetuneOptions).path == start


def test_our_recipe_is_that_of_its_file(args: argparse.Namespace):
    options = train.read_flags(methods.flags_of(methods.OURS, "all people", 4, 1, args))
    file = read_yaml(methods.ROOT / "configs" / "descry.yaml")
    assert options.get(LossOptions).loss_names == file["loss_names"]
    assert options.get(ITCOptions).itc_loss_weight == file["itc_loss_weight"]
    assert options.get(SolverOptions).tse_lr == file["tse_lr"]


@pytest.mark.parametrize(
    ("scores", "best", "tried"),
    [
        ([1, 2, 3, 2, 1], 1.0, {0.333, 1.0, 3.0}),
        ([1, 2, 3, 4, 5], 10.0, {1.0, 3.0, 10.0}),
        ([5, 4, 3, 2, 1], 0.1, {0.1, 0.333, 1.0, 3.0}),
        ([1, 2, 3, 3, 9], 1.0, {0.333, 1.0, 3.0}),
    ],
)
def test_the_search_climbs_from_the_middle(
    scores: list[int], best: float, tried: set[float], args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
):
    asked = set()

    def result(name: str, setting: str, factor: float, seed: int, args: argparse.Namespace) -> dict[str, float]:
        asked.add(factor)
        assert (setting, seed) == ("all people", 1)
        return {"val R1": scores[args.factors.index(factor)]}

    monkeypatch.setattr(methods, "result", result)
    assert methods.best_factor("IRRA", "a fifth of the captions exchanged", args) == best
    assert asked == tried


def test_equal_time_is_counted_in_whole_epochs(args: argparse.Namespace):
    for name, seconds in (("IRRA", 17.0), ("Descry", 6.0), ("ICLF", 60.0)):
        (args.out / f"seconds-{name}.json").write_text(str(seconds))
    assert methods.epochs_of("IRRA", "all people", args) == 2
    assert methods.epochs_of("Descry", "all people", args) == 6
    assert methods.epochs_of("Descry", "a tenth of the people", args) == 23
    assert methods.epochs_of("ICLF", "all people", args) == 1
