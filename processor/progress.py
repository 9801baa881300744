"""The progress and results of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Everything that a resumed run needs besides weights and optimiser."""

    epoch: int = 1
    """the epoch that is running, or that comes next"""
    step: int = 0
    """steps done in it"""
    best: dict[str, float] = field(default_factory=dict)
    """metrics of best.pth, with its epoch"""
    last: dict[str, float] = field(default_factory=dict)
    """metrics of the last evaluation, with its epoch"""
    evaluated: int = 0
    """steps of the whole run after which that was"""
    sums: dict[str, float] = field(default_factory=dict)
    """of this epoch's logged scalars"""
    counts: dict[str, int] = field(default_factory=dict)
    """steps that each of them was reported in"""

    def add(self, report: Mapping[str, float]) -> None:
        """Count the scalars of a step."""
        for name, value in report.items():
            self.counts[name] = self.counts.get(name, 0) + 1
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Of this epoch's scalars, each over the steps that reported it."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether a new best.pth is due: R1 has risen, or nothing has changed.

        Frozen towers give the same metrics again and again, while a cross encoder on top of them learns on.
        """
        return metrics["R1"] > self.best.get("R1", -1.0) or metrics.items() <= self.best.items()
