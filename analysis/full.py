"""Everything about a finished run in one folder: ``python -m analysis.full RUN``.

Tests the run on its own data set and on all others below its --root_dir, each with intervals, in both directions and
with a report, and writes an index page with one table of all.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from analysis.cross_domain import CrossDomainTarget
from analysis.evaluated_run import EvaluatedRun, RetrievalOptions
from analysis.figures import draw_intervals
from analysis.page import Diagram, Section, interval_text, write_page
from analysis.published import published_table
from analysis.report import write_report
from analysis.testing import TEST_GROUPS, UNREAD, evaluate_run
from datasets.json_file import load_json
from datasets.mannequins.options import MannequinOptions
from datasets.options import DataOptions, data_options
from datasets.summary import describe, recognise
from model.backbones.spec import BackboneOptions
from model.build import LossOptions, model_options
from processor.metrics import EXTRA_METRICS
from processor.metrics.table import metric_cells, metric_names
from processor.run_dir.curves import draw_curves
from processor.run_dir.history import read_history
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT
from utils import UserError
from utils.command import named_first, parse, run_command
from utils.files import write_text
from utils.log import NEXT, setup_logger
from utils.options import Options, flag_names, opt
from utils.tables import Table

log = logging.getLogger("descry")


@dataclass(frozen=True)
class FullOptions:
    """Flags of the command."""

    run: Path | None = opt(None, "the run directory, with which the command may also begin")
    output: Path | None = opt(None, "folder of the pages; default: RUN/full")


GROUPS = {
    "everything about a run": [FullOptions],
    **TEST_GROUPS,
    **data_options(),
    **model_options(),
}
"""the flags of the command, by section of --help"""
DECIDED = ("report", "report_dir", "report_queries", "export_merged", "paraphrases", "descriptions")
"""flags that mean nothing for several data sets at once, or that the command sets"""


CSV = "results.csv"


class Outcome(NamedTuple):
    """A data set, and what came of testing on it."""

    name: str
    own: bool
    """whether the run was trained on it"""
    rows: Mapping[str, Mapping[str, float]]
    data: Table
    page: Path


def full(options: Options) -> Path:
    """Test, report and summarise; returns the index page.

    Raises:
        UserError: no run is named, or it cannot be tested on its own data set.
    """
    run_dir = options.get(FullOptions).run
    if run_dir is None:
        raise UserError("--run: say which run, as in python -m analysis.full logs/CUHK-PEDES/...")
    if not (run_dir / "best.pth").is_file():
        raise UserError(f"--run {run_dir}: there is no best.pth in it")
    for name in filter(options.given, DECIDED):
        raise UserError(f"--{name}: has no effect here; use test.py")
    run = options.based_on(run_dir / "configs.yaml", {*PUBLISHED_WITHOUT_EFFECT, *UNREAD}, lenient=True)
    folder = options.get(FullOptions).output or run_dir / "full"
    outcomes, left_out = [], []
    for number, target in enumerate(_targets(run)):
        name = target.dataset_name
        is_own = number < len(run.get(DataOptions).dataset_names)
        try:
            outcomes.append(_outcome(target.flags_of(run), folder / name, is_own))
        except UserError as error:
            if is_own:
                raise
            left_out.append(f"{name}: {error}")
            log.warning("%s is left out: %s", name, error)
    sections = _sections(run_dir, outcomes, left_out)
    page = write_page(folder, f"Run: {run_dir.name}", _facts(run_dir, run), sections, "index.html")
    write_text(folder / CSV, _result_table(outcomes).csv())
    return page


def _targets(run: Options) -> list[CrossDomainTarget]:
    """The run's own data set, and the others beside it that can be recognised."""
    targets = list(CrossDomainTarget.each_of(run))
    known, root = {own.dataset_name for own in targets}, targets[0].root_dir
    if "Custom" in known or not root.is_dir():
        return targets
    for found in recognise(root):
        flags = {"dataset_name": found.name, "root_dir": found.root}
        drawn = found.root / found.name / "mannequins.json"
        if found.name == "Mannequins" and drawn.is_file():
            saved = load_json(drawn)
            flags |= {name: saved[name] for name in flag_names(MannequinOptions) if name in saved}
        if found.name not in known:
            targets.append(CrossDomainTarget.of(run.replaced(**flags)))
    return targets


def _outcome(options: Options, folder: Path, own: bool) -> Outcome:
    flags = {"intervals": True, "i2t": True, "report": True, "report_dir": folder}
    if not options.given("metrics"):
        flags["metrics"] = tuple(name for name in EXTRA_METRICS if name != "mSD_published")
    run: EvaluatedRun = evaluate_run(options.replaced(**flags))
    page = write_report(run)
    form = run.restored.model.input_format(options.get(BackboneOptions).text_length)
    return Outcome(run.dataset.name, own, run.rows, describe(run.dataset, form.tokenizer, form.text_length), page)


def _facts(run_dir: Path, run: Options) -> dict[str, str]:
    facts = {
        "run": str(run_dir),
        "trained on": run.get(DataOptions).dataset_name,
        "losses": run.get(LossOptions).loss_names,
        "start": run.get(BackboneOptions).pretrain_choice,
        "split": run.get(RetrievalOptions).test_split,
    }
    return {name: value for name, value in facts.items() if value}


def _result_table(outcomes: Sequence[Outcome]) -> Table:
    """A row per data set and row of its table."""
    names = metric_names(row for each in outcomes for row in each.rows.values())
    rows = [
        (f"{each.name} *" if each.own else each.name, task, *metric_cells(row, names))
        for each in outcomes
        for task, row in each.rows.items()
    ]
    return Table(("data set", "task", *names), tuple(rows), text_columns=2)


def _compact(outcomes: Sequence[Outcome]) -> Table:
    """A row per data set and task, with each interval beside its number."""
    names = metric_names(row for each in outcomes for row in each.rows.values())
    rows = []
    for each in outcomes:
        label = f"{each.name}\u00a0*" if each.own else each.name
        for task, row in each.rows.items():
            bounds = [each.rows.get(f"{task}, 95 % {end}") for end in ("from", "to")]
            if all(bounds):  # the others are bounds themselves
                low, high = bounds
                cells = (interval_text(row[name], low[name], high[name], digits=1) for name in names)
                rows.append((label, task, *cells))
                label = ""
    return Table(("data set", "task", *names), tuple(rows), text_columns=2)


def _data(outcomes: Sequence[Outcome]) -> Table:
    rows = tuple((each.name, *row) for each in outcomes for row in each.data.rows)
    return Table(("data set", *outcomes[0].data.columns), rows, text_columns=2)


def _sections(run_dir: Path, outcomes: Sequence[Outcome], left_out: Sequence[str]) -> list[Section]:
    r1 = {}
    for each in outcomes:
        r1[each.name] = tuple(each.rows[name]["R1"] for name in ("t2i", "t2i, 95 % from", "t2i, 95 % to"))
    figures = [Diagram("r1", "R1 with its 95 % interval, by data set", draw_intervals(r1, "R1, text to image (%)"))]
    sections = [
        Section(
            "Reports",
            "One page per data set: successes and failures, what captions name, words on patches.",
            links=(
                *((each.name, f"{each.page.parent.name}/{each.page.name}") for each in outcomes),
                ("all numbers as CSV", CSV),
            ),
        ),
        Section(
            "Results",
            "In percent; * the data set that the run was trained on. t2i: captions are the queries, images the "
            "gallery; i2t: the reverse. In brackets the 95 % interval by bootstrap over identities.",
            _compact(outcomes),
            tuple(figures),
        ),
    ]
    trained_on = {each.name for each in outcomes if each.own}
    if published := published_table([each.name for each in outcomes if not each.own], trained_on, starts=False):
        table, sources = published
        sections.append(Section("Published", f"R1 / mAP of others, for comparison. {' '.join(sources)}", table))
    if history := read_history(run_dir):
        curves = Diagram("curves", "losses, learning rates, R1 and mAP by epoch", draw_curves(history), wide=True)
        sections.append(Section("Training", figures=(curves,)))
    text = "Captions in tokens of this model; the last column is the share of them that it cuts."
    sections.append(Section("Data", text, _data(outcomes)))
    if left_out:
        sections.append(Section("Left out", " ".join(left_out)))
    return sections


def main(argv: Sequence[str] | None = None) -> None:
    """Write everything; see the module's docstring."""
    options = parse(GROUPS, named_first(argv, "--run"), __doc__, PUBLISHED_WITHOUT_EFFECT, UNREAD, lenient=True)
    setup_logger()
    log.info("open in a browser: %s", full(options), extra=NEXT)


if __name__ == "__main__":
    run_command(main)
