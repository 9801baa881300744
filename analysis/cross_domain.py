"""``test.py --cross_domain``: runs and starting points on the data sets of the runs, or on named ones."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from analysis.evaluated_run import RetrievalOptions, load_split, log_start
from analysis.published import published_table
from datasets import DATASETS
from datasets.mannequins.options import MannequinOptions
from datasets.options import DataOptions
from model.backbones import BACKBONES, load_backbone
from model.backbones.clip import RANDOM
from model.backbones.spec import BackboneOptions
from model.checkpoints.archives import ARCHIVES, read_weights
from model.checkpoints.restore import restore
from model.retriever import Retriever
from processor.evaluator import Evaluator
from processor.metrics import METRICS
from processor.metrics.table import metric_cells, metric_names
from utils import UserError
from utils.device import Precision, TestDeviceOptions, pick_precision
from utils.distributed import main_first, on_main
from utils.options import Options, opt
from utils.tables import Table

SINGLE_RUN_FLAGS = (
    "checkpoint",
    "i2t",
    "export_merged",
    "rerank",
    "rerank_by",
    "intervals",
    "report",
    "paraphrases",
    "descriptions",
)
"""flags of test.py that say nothing about several runs; so does ``--config_file``"""

log = logging.getLogger("descry")


@dataclass(frozen=True)
class CrossDomainOptions:
    """Flags of the cross-domain table."""

    cross_domain: tuple[Path, ...] = opt(
        (),
        "run directories: test each one's best.pth on the data sets of all; also starting points: a name or file as "
        "--pretrain_choice takes it, or a checkpoint",
    )
    targets: tuple[str, ...] = opt((), "data sets to test on instead, as NAME or NAME=ROOT_DIR (default: --root_dir)")
    csv: Path | None = opt(None, "also write every number to this file")

    def __post_init__(self) -> None:
        for name in ("targets", "csv"):
            if getattr(self, name) and not self.cross_domain:
                raise UserError(f"--{name}: has no effect without --cross_domain")
        if self.csv is not None and not self.csv.parent.is_dir():
            raise UserError(f"--csv {self.csv}: there is no folder {self.csv.parent}")


@dataclass(frozen=True)
class CrossDomainTarget:
    """A data set to test on. Two are equal if they hold the same, however their folder is spelt."""

    dataset_name: str
    root_dir: Path = field(compare=False)
    """as the user spelt it"""
    resolved_root: Path
    drawing: MannequinOptions
    """what Mannequins hold; the defaults for any other data set"""

    @classmethod
    def of(cls, options: Options) -> "CrossDomainTarget":
        """The data set that flags name: for the flags of a run, the one it was trained on."""
        data, drawing = options.get(DataOptions), options.get(MannequinOptions)
        drawing = drawing if data.dataset_name == "Mannequins" else MannequinOptions()
        return cls(data.dataset_name, data.root, data.root.resolve(), drawing)

    @classmethod
    def each_of(cls, options: Options) -> tuple["CrossDomainTarget", ...]:
        """The data sets that flags join; usually one."""
        return tuple(cls.of(options.replaced(dataset_name=name)) for name in options.get(DataOptions).dataset_names)

    @classmethod
    def named(cls, text: str, options: Options) -> "CrossDomainTarget":
        """The data set of ``NAME`` or ``NAME=ROOT_DIR``; the flags say the rest.

        Raises:
            UserError: no data set has this name.
        """
        name, _, root = text.partition("=")
        if name not in DATASETS:
            raise UserError(f"--targets {text}: expected NAME or NAME=ROOT_DIR with a name of {', '.join(DATASETS)}")
        return cls.of(options.replaced(dataset_name=name, **({"root_dir": Path(root)} if root else {})))

    def flags_of(self, run: Options) -> Options:
        """A run's flags with this data set in place of its own."""
        return run.replaced(
            joint_sampling="proportional",
            dataset_name=self.dataset_name,
            root_dir=self.root_dir,
            **asdict(self.drawing),
        )

    def label(self, targets: Sequence["CrossDomainTarget"]) -> str:
        """The name, followed by the flags that tell it from others of the same name."""
        namesakes = [other for other in targets if other.dataset_name == self.dataset_name]
        words = [self.dataset_name]
        for flag in fields(MannequinOptions):
            if len({getattr(other.drawing, flag.name) for other in namesakes}) > 1:
                words.append(f"{flag.name.removeprefix('mannequin_')} {getattr(self.drawing, flag.name)}")
        if len({other.resolved_root for other in namesakes}) > 1:
            words.append(str(self.root_dir))
        return " ".join(words)


class Entrant(NamedTuple):
    """A row of the table: a run, or a starting point."""

    path: Path
    """as the user gave it"""
    options: Options
    own: tuple[CrossDomainTarget, ...]
    """what a run was trained on; nothing for a starting point"""
    load: Callable[[Precision], Retriever]


def _entrant(path: Path, options: Options, ignored: Collection[str]) -> Entrant:
    """A run where there is a folder; otherwise weights, which take sizes and lengths from the command line."""
    if (path / "best.pth").is_file():
        run = options.based_on(path / "configs.yaml", ignored, lenient=True)
        return Entrant(
            path,
            run,
            CrossDomainTarget.each_of(run),
            lambda precision: restore(path / "best.pth", run.get, precision).model,
        )
    if path.is_dir():
        raise UserError(f"--cross_domain {path}: there is no best.pth in it")
    choice = str(path)
    if not path.is_file() and choice not in (*ARCHIVES, *RANDOM) and ":" not in choice:
        names = ", ".join((*ARCHIVES, *RANDOM))
        raise UserError(f"--cross_domain {path}: neither a run directory nor a file nor one of {names}")
    start = options.replaced(pretrain_choice=choice)
    return Entrant(path, start, (), lambda precision: _starting_point(path, start, precision))


def _starting_point(path: Path, options: Options, precision: Precision) -> Retriever:
    """A checkpoint, which shows by the names of its weights, or towers alone."""
    if path.is_file():
        names = (key.removeprefix("module.") for key in read_weights(path))
        if any(name.startswith(("base_model.", *(f"{family}." for family in BACKBONES))) for name in names):
            return restore(path, options.get, precision).model
    return Retriever(load_backbone(options.get(BackboneOptions)), precision=precision).eval()


class CrossDomainResult(NamedTuple):
    """One run on one data set."""

    run: str
    target: str
    own: bool
    """whether the run was trained on that data set"""
    metrics: Mapping[str, float]


def cross_domain(options: Options, ignored: Collection[str]) -> None:
    """Print R1 and mAP of every run of ``--cross_domain`` on every data set, and write ``--csv``.

    Args:
        options: flags of the command line; each run's ``configs.yaml`` fills in the others.
        ignored: keys of ``configs.yaml`` that have no effect on a test.

    Raises:
        UserError: a flag makes sense for a single run only; a row is neither run nor weights; no such data set.
    """
    flags, test = options.get(CrossDomainOptions), options.get(RetrievalOptions)
    precision = pick_precision(options.get(TestDeviceOptions))
    for name in [*filter(options.given, SINGLE_RUN_FLAGS), *(["config_file"] if options.config_file else [])]:
        raise UserError(f"--{name}: cannot be combined with --cross_domain, which tests best.pth of every run")
    entrants = [_entrant(path, options, ignored) for path in flags.cross_domain]
    targets = [CrossDomainTarget.named(text, options) for text in flags.targets]
    targets = list(dict.fromkeys(targets or [own for each in entrants for own in each.own]))
    if not targets:
        raise UserError("--cross_domain: starting points alone; say on which data sets to test them with --targets")
    for entrant in entrants:
        if not entrant.own:
            entrant.load(precision)  # what is wrong with such weights should show before hours are spent on others
    results = []
    for entrant in entrants:
        model = entrant.load(precision)
        for target in targets:
            log_start(entrant.path, target.dataset_name, test.test_split, model)
            with main_first():
                _, split = load_split(target.flags_of(entrant.options), model, test.test_split)
            # the matrix needs the standard columns, whichever the user chose
            columns = {**METRICS, **test.columns}
            evaluation = Evaluator(model, split).evaluate(False, test.allow_unmatched, False, True, columns)
            metrics = evaluation.rows["t2i"]
            results.append(CrossDomainResult(str(entrant.path), target.label(targets), target in entrant.own, metrics))
    log.info(
        "R1 / mAP, text to image, %s; * the data set that the run was trained on\n%s",
        precision.name,
        matrix(results).pretty(),
    )
    trained_on = {own.dataset_name for each in entrants for own in each.own}
    starts = any(not each.own for each in entrants)
    if published := published_table([target.dataset_name for target in targets], trained_on, starts):
        table, sources = published
        log.info("R1 / mAP as published\n%s\n%s", table.pretty(), "\n".join(sources))
    if flags.csv is not None:
        on_main(lambda: flags.csv.write_text(long_table(results).csv(), encoding="utf-8"))
        log.info("all metrics: %s", flags.csv)


def matrix(results: Sequence[CrossDomainResult]) -> Table:
    """A row per run, a column per data set, R1 / mAP in each cell; ``results`` run by run."""
    rows: dict[str, list[str]] = {}
    for run, _, own, metrics in results:
        rows.setdefault(run, [run]).append(f"{'* ' if own else ''}{metrics['R1']:.2f} / {metrics['mAP']:.2f}")
    columns = dict.fromkeys(result.target for result in results)
    return Table(("run", *columns), tuple(map(tuple, rows.values())))


def long_table(results: Sequence[CrossDomainResult]) -> Table:
    """A row per run and data set, with all metrics."""
    names = metric_names(result.metrics for result in results)
    rows = []
    for run, target, own, metrics in results:
        rows.append((run, target, "yes" if own else "no", *metric_cells(metrics, names)))
    return Table(("run", "data set", "own", *names), tuple(rows), text_columns=3)
