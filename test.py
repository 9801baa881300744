"""Test a trained model: ``python test.py --config_file RUN/configs.yaml``; other flags override the run's."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
import os
from collections.abc import Sequence

from analysis.cross_domain import CrossDomainOptions, cross_domain
from analysis.evaluated_run import EvaluatedRun, ReportOptions, TestOptions, load_split, log_start
from analysis.experts import expert_table
from datasets.options import DataOptions, data_options
from model.build import model_options
from model.checkpoints.restore import restore
from model.matcher import restore_matcher
from processor.evaluator import Evaluator
from processor.metrics.table import metrics_table
from processor.rerank import rerank
from processor.run_dir.checkpoint import export_merged
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT, TRAINING_ONLY
from utils import UserError
from utils.command import parse, run_command
from utils.device import TestDeviceOptions, pick_precision
from utils.distributed import main_first, world_size
from utils.log import NEXT, log_to, setup_logger
from utils.options import Options

GROUPS = {
    "test": [TestOptions, TestDeviceOptions],
    "report": [ReportOptions],
    "cross-domain": [CrossDomainOptions],
    **data_options(),
    **model_options(),
}
"""every flag of test.py, by section of --help"""
UNREAD = {*TRAINING_ONLY, "precision"}
"""keys of a run's configs.yaml that mean nothing for testing"""

log = logging.getLogger("descry")


def read_flags(argv: Sequence[str] | None) -> Options:
    """Flags of the command line over those of the run's ``configs.yaml``, whoever wrote it."""
    return parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT, UNREAD, lenient=True)


def test_run(options: Options) -> None:
    """Test the run of ``--config_file``."""
    test, page = options.get(TestOptions), options.get(ReportOptions)
    if options.config_file is None:
        raise UserError("--config_file: say which run to test, as in --config_file logs/.../configs.yaml")
    run_dir = options.config_file.parent
    if os.access(run_dir, os.W_OK):
        log_to(run_dir / "test_log.txt")
    for name, given in (("rerank", test.rerank), ("report", page.report)):
        if given and world_size() > 1:
            raise UserError(f"--{name}: works in one process; leave torchrun out")
    precision = pick_precision(options.get(TestDeviceOptions))
    restored = restore(test.checkpoint or run_dir / "best.pth", options.get, precision)
    model, unused = restored.model, restored.unused
    if test.rerank:
        matcher, used = restore_matcher(restored)
        unused = [key for key in unused if key not in used]
    log_start(restored.checkpoint, options.get(DataOptions).dataset_name, test.test_split, model)
    if restored.unknown or unused:
        roots = dict.fromkeys(".".join(key.split(".")[:2]) for key in unused)
        log.info("not used in testing: %s", ", ".join([*roots, *restored.unknown]))
    if test.export_merged is not None:
        export_merged(model, test.export_merged)
    with main_first():
        dataset, split = load_split(options, model, test.test_split, padded=bool(test.rerank))
    page.require_queries(len(split.query_pids), split.name)
    evaluator = Evaluator(model, split)
    rows, features = evaluator.evaluate(test.i2t, test.allow_unmatched, each_embedding=True, refuse_equal=True)
    log.info("%s %s, %s\n%s", dataset.name, split.name, precision.name, metrics_table(rows))
    if use := model.expert_use():
        log.info("tokens per expert, and entropy of their shares\n%s", expert_table(use).pretty())
    if test.rerank:
        row = rerank(model, matcher, split, features, test.rerank, test.allow_unmatched)
        table = metrics_table({"t2i": row})
        log.info("first %d images reranked by the matching head, %s\n%s", test.rerank, precision.name, table)
        rows[f"t2i, first {test.rerank} reranked"] = row
    if page.report:
        from analysis.report import write_report  # needs Jinja2, which testing alone does not

        path = write_report(EvaluatedRun(options, restored, dataset, split, features, rows))
        log.info("open in a browser: %s", path, extra=NEXT)
    else:
        log.info("see what it gets wrong: python test.py --config_file %s --report", options.config_file, extra=NEXT)


def main(argv: Sequence[str] | None = None) -> None:
    """Test from flags; see README.md."""
    options = read_flags(argv)
    setup_logger()
    if options.get(CrossDomainOptions).cross_domain:
        cross_domain(options, {*PUBLISHED_WITHOUT_EFFECT, *UNREAD})
    else:
        test_run(options)


if __name__ == "__main__":
    run_command(main)
