"""Is one run better than another, or is it chance? ``python -m analysis.significance RUN_A RUN_B``

Both runs answer the same queries. Which of the two results is whose is exchanged at random, identity by identity, to
see how often chance alone gives a difference as large.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.cross_domain import CrossDomainTarget
from analysis.evaluated_run import RetrievalOptions, load_split, log_start
from analysis.testing import UNREAD
from datasets.options import data_options
from model.build import model_options
from model.checkpoints.restore import restore
from processor.evaluator import Evaluation, Evaluator
from processor.metrics.confidence import LEVEL, RESAMPLINGS, Difference, compare_queries
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT
from utils import UserError
from utils.command import named_first, parse, run_command
from utils.device import Precision, TestDeviceOptions, pick_precision
from utils.log import setup_logger
from utils.options import Options, opt
from utils.tables import Table

log = logging.getLogger("descry")


@dataclass(frozen=True)
class RunsOptions:
    """Which runs to compare."""

    runs: tuple[Path, ...] = opt((), "the two run directories, with which the command may also begin")

    def __post_init__(self) -> None:
        if len(self.runs) != 2:
            raise UserError(f"--runs: expected two run directories, as in RUN_A RUN_B, found {len(self.runs)}")
        if len({path.resolve() for path in self.runs}) == 1:
            raise UserError(f"--runs {self.runs[0]} {self.runs[1]}: the same run twice")
        for path in self.runs:
            if not (path / "best.pth").is_file():
                raise UserError(f"--runs {path}: there is no best.pth in it")


GROUPS = {
    "comparison": [RunsOptions, RetrievalOptions, TestDeviceOptions],
    **data_options(),
    **model_options(),
}
"""the flags of the command, by section of --help"""


def compare_runs(options: Options) -> None:
    """Test both runs of ``--runs`` on the same split, and log how they differ.

    Raises:
        UserError: they were trained on different data sets and no flag says on which to test; a run or the data set
            cannot be used.
    """
    paths, precision = options.get(RunsOptions).runs, pick_precision(options.get(TestDeviceOptions))
    ignored = {*PUBLISHED_WITHOUT_EFFECT, *UNREAD}
    runs = [options.based_on(path / "configs.yaml", ignored, lenient=True) for path in paths]
    targets = [CrossDomainTarget.of(run) for run in runs]
    if "+" in targets[0].dataset_name:
        raise UserError(f"--dataset_name {targets[0].dataset_name}: say on which one of these to compare")
    if targets[0] != targets[1]:
        names = " and ".join(target.label(targets) for target in targets)
        raise UserError(
            f"--runs {paths[0]} {paths[1]}: trained on {names}, so their results are not of the same queries; say on "
            "which data set both are tested, as in --dataset_name RSTPReid --root_dir DATA"
        )
    one, other = (evaluate_checkpoint(path / "best.pth", run, precision) for path, run in zip(paths, runs, strict=True))
    for task, queries in one.queries.items():
        pids = one.features.gallery_pids if task == "i2t" else one.features.query_pids
        differences = compare_queries(queries, other.queries[task], pids)
        table = comparison(one.rows[task], other.rows[task], differences)
        title = f"{task} on {targets[0].dataset_name} {options.get(RetrievalOptions).test_split}"
        counts = f"{len(pids):,} queries of {len(pids.unique()):,} identities, {RESAMPLINGS:,} resamplings of these"
        log.info("%s: A is %s, B is %s\n%s\n%s", title, *paths, table.pretty(), counts)


def evaluate_checkpoint(weights: Path, run: Options, precision: Precision) -> Evaluation:
    """A checkpoint's metrics, and what each query contributes to them, on the split that flags of its run name.

    Raises:
        UserError: the checkpoint or the data set cannot be used.
    """
    retrieval = run.get(RetrievalOptions)
    model = restore(weights, run.get, precision).model
    log_start(weights, CrossDomainTarget.of(run).dataset_name, retrieval.test_split, model)
    _, split = load_split(run, model, retrieval.test_split)
    return Evaluator(model, split).evaluate(
        retrieval.i2t, retrieval.allow_unmatched, refuse_equal=True, metrics=retrieval.columns
    )


def comparison(one: dict[str, float], other: dict[str, float], differences: dict[str, Difference]) -> Table:
    """A row per metric: both runs, what they differ by with its interval, and the probability that this is chance."""
    rows = []
    for name, (value, low, high, p) in differences.items():
        better = "A" if value > 0 else "B"
        verdict = f"{better} is better" if p < 1 - LEVEL else "may be chance"
        numbers = (f"{one[name]:.2f}", f"{other[name]:.2f}", f"{value:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{p:.4f}")
        rows.append((name, *numbers, verdict))
    return Table(("metric", "A", "B", "A - B", f"{LEVEL:.0%} interval", "p", "verdict"), tuple(rows))


def main(argv: Sequence[str] | None = None) -> None:
    """Compare from flags; see the module's docstring."""
    options = parse(GROUPS, named_first(argv, "--runs"), __doc__, PUBLISHED_WITHOUT_EFFECT, UNREAD, lenient=True)
    setup_logger()
    compare_runs(options)


if __name__ == "__main__":
    run_command(main)
