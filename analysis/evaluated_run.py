"""A trained run and a split that it was tested on: what reports and tables are made from; and the flags for both."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets.batches.evaluation_split import EvaluationSplit
from datasets.open import open_dataset
from datasets.records import Dataset
from model.adapters.parsing import LEAK
from model.backbones.spec import BackboneOptions
from model.checkpoints.restore import RestoredRun
from model.retriever import Retriever
from processor.evaluator import Features
from processor.metrics import EXTRA_METRICS, KS, chosen_metrics
from processor.metrics.metric import Metric
from processor.metrics.ranks import QueryMetrics
from utils import UserError
from utils.options import Options, opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class RetrievalOptions:
    """Which split is ranked, and what is said about it: the flags of everything that tests."""

    test_split: str = opt("test", "split to test on", choices=("test", "val", "train"))
    i2t: bool = opt(False, "also rank captions for every image")
    ks: tuple[int, ...] = opt(KS, "the k of the columns R@k", least=1)
    metrics: tuple[str, ...] = opt((), "further columns of the table", choices=tuple(EXTRA_METRICS))
    allow_unmatched: bool = opt(False, "leave out queries without any match in the gallery, and count them")

    @property
    def columns(self) -> dict[str, Metric]:
        """The metrics of the table."""
        return chosen_metrics(self.ks, self.metrics)


@dataclass(frozen=True)
class TestOptions:
    """What to test of a single run, and how."""

    checkpoint: Path | None = opt(None, "weights to test; default: best.pth beside --config_file")
    export_merged: Path | None = opt(None, "also write the towers to this file, with LoRA merged into their weights")
    rerank: int = opt(
        0, "also rerank the first N images of every query with the matching head (runs with the itm loss)", least=0
    )
    rerank_by: str = opt(
        "both",
        "what --rerank goes by: the sum of cosine and matching score, or the matching score alone",
        choices=("both", "matching"),
    )
    intervals: bool = opt(False, "also show the 95 % interval of every number, by bootstrap over query identities")

    def __post_init__(self) -> None:
        if self.rerank_by != "both" and not self.rerank:
            raise UserError(f"--rerank_by {self.rerank_by}: has no effect without --rerank")


@dataclass(frozen=True)
class ReportOptions:
    """Flags of the report."""

    report: bool = opt(False, "write a page with example queries and diagrams")
    report_dir: Path | None = opt(None, "folder of the page; default: RUN/report_DATASET_SPLIT")
    report_queries: tuple[int, ...] = opt(
        (), "queries to show, numbered from 0; default: a sample, the worst failures, the most confident errors"
    )
    report_count: int = opt(10, "queries in each of the three default lists", least=1)

    def __post_init__(self) -> None:
        for name in ("report_dir", "report_queries"):
            if getattr(self, name) and not self.report:
                raise UserError(f"--{name}: has no effect without --report")

    def require_queries(self, total: int, split: str) -> None:
        """Refuse queries beyond the ``total`` of a split.

        Raises:
            UserError: names the first of them.
        """
        for query in self.report_queries:
            if not 0 <= query < total:
                raise UserError(f"--report_queries {query}: {split} has queries 0 to {total - 1}")


class EvaluatedRun(NamedTuple):
    """A run, the split it was tested on, and the outcome."""

    options: Options
    restored: RestoredRun
    """its model has encoded the split"""
    dataset: Dataset
    split: EvaluationSplit
    features: Features
    rows: Mapping[str, Mapping[str, float]]
    """metrics in percent by row of the table, such as ``t2i``"""
    queries: Mapping[str, QueryMetrics]
    """what each row is the mean of"""


def log_start(weights: Path, dataset_name: str, split: str, model: Retriever) -> None:
    """Say what the next table is of, and in which arithmetic: bfloat16 gives slightly different numbers."""
    log.info("testing %s on %s %s, %s", weights, dataset_name, split, model.precision)
    if model.attends_over_batch:
        log.warning(LEAK)


def load_split(options: Options, model: Retriever, name: str, padded: bool = False) -> tuple[Dataset, EvaluationSplit]:
    """The data set of a run's flags and one of its splits, prepared for a model.

    ``padded`` keeps captions at full length and in order, even if the model does not need it.

    Raises:
        UserError: the data set cannot be used, or has no such split.
    """
    form = model.input_format(options.get(BackboneOptions).text_length)
    opened = open_dataset(options.get, form.image_size, {name: "--test_split"}, form.resize_filter)
    form = form._replace(reads_padding=padded or form.reads_padding)
    return opened.dataset, opened.split(name, form, model.precision.device)
