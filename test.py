"""Test a trained model: ``python test.py --config_file RUN/configs.yaml``; other flags override the run's."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.cross_domain import CrossDomainOptions, cross_domain
from analysis.evaluated_run import EvaluatedRun, load_split, log_start
from analysis.method_sections import expert_table
from analysis.report import ReportOptions, write_report
from datasets.batches.options import DataOptions, data_groups
from model.adapters.parsing import LEAK
from model.build import model_groups
from model.checkpoints.finetune import FinetuneOptions
from model.checkpoints.restore import restore
from model.matcher import restore_matcher
from model.retriever import Retriever
from processor.evaluator import encode_split, table_rows
from processor.metrics.table import metrics_table
from processor.rerank import rerank
from processor.run_dir.checkpoint import write_checkpoint
from processor.run_dir.layout import RunOptions
from processor.run_dir.published_flags import PUBLISHED_WITHOUT_EFFECT
from processor.trainer import LoopOptions
from solver.optimizer import SolverOptions
from solver.schedule import ScheduleOptions
from utils.command import parse, run_command
from utils.device import DeviceOptions, pick_device, pick_precision
from utils.distributed import main_first, world_size
from utils.log import NEXT, log_to, setup_logger
from utils.options import Options, flags_of, opt


@dataclass(frozen=True)
class TestOptions:
    """Flags of test.py alone."""

    checkpoint: Path | None = opt(None, "weights to test; default: best.pth beside --config_file")
    test_split: str = opt("test", "split to test on", choices=("test", "val", "train"))
    i2t: bool = opt(False, "also rank captions for every image")
    export_merged: Path | None = opt(
        None, "also write the towers here, with LoRA merged into their weights, as a run without LoRA would"
    )
    allow_unmatched: bool = opt(False, "leave out queries without any match in the gallery, and count them")
    rerank: int = opt(
        0, "also put the first N images of every query in the order of the matching head (runs with the itm loss)"
    )

    def __post_init__(self) -> None:
        if self.rerank < 0:
            raise ValueError(f"--rerank {self.rerank}: expected 0 (off) or a number of images")


GROUPS = {
    "test": [TestOptions, DeviceOptions],
    "report": [ReportOptions],
    "cross-domain": [CrossDomainOptions],
    **data_groups(),
    **model_groups(),
}
"""every flag of test.py, by section of --help"""
TRAINING_ONLY = (RunOptions, FinetuneOptions, SolverOptions, ScheduleOptions, LoopOptions)
UNREAD = {*PUBLISHED_WITHOUT_EFFECT, *(flag.name for options in TRAINING_ONLY for flag in flags_of(options))}
"""keys of a run's configs.yaml that mean nothing for testing"""

log = logging.getLogger("descry")


def export_merged(model: Retriever, path: Path) -> None:
    """Write the towers, whose LoRA is merged, as a run without LoRA would; prompts cannot be merged and go along."""
    write_checkpoint(path, {"model": model.state_dict()})
    if model.clip.prompts is not None:
        log.warning(
            "--export_merged %s: prompts cannot be merged, they are in it as clip.prompts.*; without them its features "
            "are others",
            path,
        )
    log.info("towers with LoRA merged: %s", path)


def read_flags(argv: Sequence[str] | None) -> Options:
    """Flags of the command line over those of the run's ``configs.yaml``, whoever wrote it."""
    return parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT, unread=TRAINING_ONLY, lenient=True)


def test_run(options: Options) -> None:
    """Test the run of ``--config_file``."""
    test, flags = options.get(TestOptions), options.get(DataOptions)
    if options.config_file is None:
        raise ValueError("--config_file: say which run to test, as in --config_file logs/.../configs.yaml")
    run_dir = options.config_file.parent
    if os.access(run_dir, os.W_OK):
        log_to(run_dir / "test_log.txt")
    device_flags = options.get(DeviceOptions)
    precision = pick_precision(device_flags, device := pick_device(device_flags))
    checkpoint = test.checkpoint or run_dir / "best.pth"
    restored = restore(checkpoint, options.get)
    model, unused = restored.model, restored.unused
    asked = options.get(ReportOptions)
    for name, given in (("rerank", test.rerank), ("report", asked.report)):
        if given and world_size() > 1:
            raise ValueError(f"--{name}: works in one process; leave torchrun out")
    if test.rerank:
        matcher, used = restore_matcher(restored.state, model.clip.sizes.embed_dim, str(checkpoint))
        unused = [key for key in unused if key not in used]
    log_start(checkpoint, flags.dataset_name, test.test_split, precision)
    if restored.unknown or unused:
        roots = dict.fromkeys(".".join(key.split(".")[:2]) for key in unused)
        log.info("not used in testing: %s", ", ".join([*roots, *restored.unknown]))
    if model.attends_over_batch:
        log.warning(LEAK)
    if test.export_merged is not None:
        export_merged(model, test.export_merged)
    with main_first():
        dataset, split = load_split(options, restored, test.test_split, device, padded=bool(test.rerank))
    asked.require_queries(len(split.query_pids), split.name)
    features = encode_split(model.to(device), split, precision)
    rows = table_rows(features, split, test.i2t, test.allow_unmatched)
    log.info("%s", metrics_table(rows))
    if use := model.expert_use():
        log.info("tokens per expert, and entropy of their shares\n%s", expert_table(use).pretty())
    if test.rerank:
        row = rerank(model, matcher.to(device), split, features, test.rerank, precision, test.allow_unmatched)
        log.info("first %d images reranked by the matching head\n%s", test.rerank, metrics_table({"t2i": row}))
        rows[f"t2i, first {test.rerank} reranked"] = row
    if asked.report:
        page = write_report(EvaluatedRun(options, checkpoint, restored, dataset, split, features, rows))
        log.info("open in a browser: %s", page, extra=NEXT)
    else:
        log.info("see what it gets wrong: python test.py --config_file %s --report", options.config_file, extra=NEXT)


def main(argv: Sequence[str] | None = None) -> None:
    """Test from flags; see README."""
    options = read_flags(argv)
    setup_logger()
    if options.get(CrossDomainOptions).cross_domain:
        test = options.get(TestOptions)
        cross_domain(options, test.test_split, test.allow_unmatched, UNREAD)
    else:
        test_run(options)


if __name__ == "__main__":
    run_command(main)
