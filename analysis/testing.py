"""What ``test.py`` does with one run: encode a split, rank it, and log the tables."""

import logging
import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from analysis.evaluated_run import EvaluatedRun, ReportOptions, RetrievalOptions, TestOptions, load_split, log_start
from analysis.experts import expert_table
from datasets.batches.evaluation_split import EvaluationSplit
from datasets.options import DataOptions
from model.backbones.spec import BackboneOptions
from model.checkpoints.restore import RestoredRun, restore
from model.feature_encoder import FeatureEncoder
from model.matcher import restore_matcher
from processor.evaluator import Evaluator
from processor.metrics.confidence import interval_rows
from processor.metrics.ranks import QueryMetrics, rank_matches, summarise
from processor.metrics.table import metrics_table
from processor.rerank import rerank
from processor.run_dir.checkpoint import export_merged
from processor.saved_flags import TRAINING_ONLY
from processor.test_time_text import TestTimeTextOptions, TestTimeTexts
from utils import UserError
from utils.device import TestDeviceOptions, pick_precision
from utils.distributed import main_first, world_size
from utils.log import log_to
from utils.options import Options

TEST_GROUPS = {
    "test": [RetrievalOptions, TestOptions, TestDeviceOptions],
    "more text at test time": [TestTimeTextOptions],
    "report": [ReportOptions],
}
"""flags of testing, by section of --help"""
UNREAD = {*TRAINING_ONLY, "precision"}
"""keys of a run's configs.yaml that mean nothing for testing"""

ALONE = ("rerank", "report", "paraphrases", "descriptions")
"""flags of what works in one process"""

log = logging.getLogger("descry")


def evaluate_run(options: Options) -> EvaluatedRun:
    """Test the run of ``--config_file`` as the flags say, and log its tables.

    Raises:
        UserError: flags that exclude each other, a run or a data set that cannot be used.
    """
    retrieval, test, page = (options.get(group) for group in (RetrievalOptions, TestOptions, ReportOptions))
    run_dir = _run_dir(options)
    if os.access(run_dir, os.W_OK):
        log_to(run_dir / "test_log.txt")
    _require_one_process(options)
    precision = pick_precision(options.get(TestDeviceOptions))
    restored = restore(test.checkpoint or run_dir / "best.pth", options.get, precision)
    model, used = restored.model, ()
    if test.rerank:
        matcher, used = restore_matcher(restored)
    log_start(restored.checkpoint, options.get(DataOptions).dataset_name, retrieval.test_split, model)
    _log_unused(restored, used)
    if test.export_merged is not None:
        export_merged(model, test.export_merged)
    with main_first():
        dataset, split = load_split(options, model, retrieval.test_split, padded=bool(test.rerank))
    texts = TestTimeTexts.read(options.get(TestTimeTextOptions), dataset, split)
    page.require_queries(len(split.query_pids), split.name)
    _, features, queries = Evaluator(model, split).evaluate(
        retrieval.i2t, retrieval.allow_unmatched, each_embedding=True, refuse_equal=True, metrics=retrieval.columns
    )
    if texts is not None:
        encoder = FeatureEncoder(model, model.input_format(options.get(BackboneOptions).text_length))
        mixed = texts.mixed(features, partial(encoder.encode_text, progress=None))
        queries |= {f"t2i, {title}": rank_matches(*each, retrieval.columns).cpu() for title, each in mixed}
    rows = table_rows(queries, split, test.intervals)
    log.info("%s %s, %s\n%s", dataset.name, split.name, precision.name, metrics_table(rows))
    if use := model.expert_use():
        log.info("tokens per expert, and entropy of their shares\n%s", expert_table(use).pretty())
    if test.rerank:
        title, alone = f"t2i, first {test.rerank} reranked", test.rerank_by == "matching"
        temperature = None if alone else matcher.temperature
        queries[title] = rerank(model, matcher, split, features, test.rerank, temperature, retrieval.columns)
        reranked = table_rows({"t2i": queries[title]}, split, test.intervals)
        table = metrics_table(reranked)
        by = "the matching head" if alone else "cosine and matching head"
        log.info("first %d images reranked by %s, %s\n%s", test.rerank, by, precision.name, table)
        rows |= {name.replace("t2i", title, 1): row for name, row in reranked.items()}
    return EvaluatedRun(options, restored, dataset, split, features, rows, queries)


def each_dataset(options: Options) -> list[Options]:
    """The flags for each of the data sets that ``--dataset_name`` joins; usually for the only one."""
    names = options.get(DataOptions).dataset_names
    if len(names) == 1:
        return [options]
    folder = options.get(ReportOptions).report_dir
    return [options.replaced(dataset_name=name, report_dir=folder and folder / name) for name in names]


def table_rows(
    queries: Mapping[str, QueryMetrics], split: EvaluationSplit, intervals: bool
) -> dict[str, dict[str, float]]:
    """Rows of a table, by task (``t2i``, ``i2t`` and so on): means over queries, and with ``intervals`` two rows more.

    Raises:
        UserError: no query has a match; intervals of a single identity.
    """
    rows = {}
    for task, each in queries.items():
        rows[task] = summarise(each)
        if intervals:
            pids = split.gallery_pids if task.startswith("i2t") else split.query_pids
            rows |= {f"{task}, {bound}": row for bound, row in interval_rows(each, pids).items()}
    return rows


def _require_one_process(options: Options) -> None:
    flags = options.flat()
    for name in ALONE:
        if flags[name] and world_size() > 1:
            raise UserError(f"--{name}: works in one process; leave torchrun out")


def _run_dir(options: Options) -> Path:
    if options.config_file is None:
        raise UserError("--config_file: say which run to test, as in --config_file logs/.../configs.yaml")
    return options.config_file.parent


def _log_unused(restored: RestoredRun, used: Collection[str]) -> None:
    unused = [key for key in restored.unused if key not in used]
    if restored.unknown or unused:
        roots = dict.fromkeys(".".join(key.split(".")[:2]) for key in unused)
        log.info("not used in testing: %s", ", ".join([*roots, *restored.unknown]))
