"""Data sets to test on that are not the run's own: the columns of a cross-domain table."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from datasets.batches.options import DATASETS, DataOptions
from datasets.mannequins.draw import MannequinOptions


@dataclass(frozen=True)
class Target:
    """A data set, with the flags that say where it is and what it holds."""

    dataset_name: str
    root_dir: Path
    drawing: MannequinOptions
    """what the drawn data set holds; without meaning for the others"""

    def flags(self, run: DataOptions) -> DataOptions:
        """A run's flags, with this data set in place of its own."""
        return replace(run, dataset_name=self.dataset_name, root_dir=self.root_dir)


def own_target(data: DataOptions, drawing: MannequinOptions) -> Target:
    """The data set that a run was trained on."""
    return Target(
        data.dataset_name, data.root_dir, drawing if data.dataset_name == "Mannequins" else MannequinOptions()
    )


def named_target(text: str, data: DataOptions, drawing: MannequinOptions) -> Target:
    """``NAME`` or ``NAME=ROOT_DIR``; what is not said is as in the flags.

    Raises:
        ValueError: no data set has this name.
    """
    name, _, root = text.partition("=")
    if name not in DATASETS:
        raise ValueError(f"--targets {text}: expected NAME or NAME=ROOT_DIR with a name of {', '.join(DATASETS)}")
    return own_target(replace(data, dataset_name=name, root_dir=Path(root) if root else data.root_dir), drawing)


def labels(targets: Sequence[Target]) -> list[str]:
    """The name of each data set; where two share a name, with the flags in which they differ."""
    return [" ".join([target.dataset_name, *_differences(target, targets)]) for target in targets]


def _differences(target: Target, targets: Sequence[Target]) -> list[str]:
    namesakes = [other for other in targets if other.dataset_name == target.dataset_name]
    roots = {other.root_dir for other in namesakes}
    drawn = [
        f"{field.name.removeprefix('mannequin_')} {getattr(target.drawing, field.name)}"
        for field in fields(MannequinOptions)
        if len({getattr(other.drawing, field.name) for other in namesakes}) > 1
    ]
    return drawn or ([str(target.root_dir)] if len(roots) > 1 else [])
