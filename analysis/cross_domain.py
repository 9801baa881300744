"""Runs on data sets that they were not trained on: source x target."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from processor.metrics.table import METRICS
from utils.options import opt
from utils.tables import Table


@dataclass(frozen=True)
class CrossDomainOptions:
    """Flags of the cross-domain table."""

    cross_domain: tuple[Path, ...] = opt((), "run directories: test each one's best.pth on the data sets of all")
    targets: tuple[str, ...] = opt(
        (), "data sets to test on instead, as NAME or NAME=ROOT_DIR (without it: --root_dir)"
    )
    csv: Path | None = opt(None, "also write every number to this file")

    def __post_init__(self) -> None:
        for name in ("targets", "csv"):
            if getattr(self, name) and not self.cross_domain:
                raise ValueError(f"--{name}: only together with --cross_domain")
        if self.csv is not None and not self.csv.parent.is_dir():
            raise ValueError(f"--csv {self.csv}: there is no folder {self.csv.parent}")

    def checked_runs(self) -> tuple[Path, ...]:
        """The run directories.

        Raises:
            ValueError: names the first that has no weights.
        """
        for path in self.cross_domain:
            if not (path / "best.pth").is_file():
                raise ValueError(f"--cross_domain {path}: there is no best.pth in it")
        return self.cross_domain


class CrossResult(NamedTuple):
    """One run on one data set."""

    run_dir: Path
    own: bool
    """whether it was trained on that data set"""
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class CrossDomain:
    """Every run on every data set."""

    targets: tuple[str, ...]
    results: tuple[CrossResult, ...]
    """run by run, in the order of ``targets``"""

    def table(self) -> Table:
        """A row per run, a column per data set, R1 / mAP in each cell."""
        width = len(self.targets)
        rows = [self.results[start : start + width] for start in range(0, len(self.results), width)]
        return Table(
            ("run", *self.targets), tuple((str(row[0].run_dir), *(_cell(result) for result in row)) for row in rows)
        )

    def long_table(self) -> Table:
        """A row per run and data set, with all metrics."""
        targets = self.targets * (len(self.results) // len(self.targets))
        rows = (
            (str(run_dir), target, "yes" if own else "no", *(f"{metrics[name]:.3f}" for name in METRICS))
            for target, (run_dir, own, metrics) in zip(targets, self.results, strict=True)
        )
        return Table(("run", "data set", "own", *METRICS), tuple(rows), text_columns=3)


def _cell(result: CrossResult) -> str:
    return f"{'* ' if result.own else ''}{result.metrics['R1']:.2f} / {result.metrics['mAP']:.2f}"
