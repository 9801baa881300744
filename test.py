"""Test a trained model: ``python test.py --config_file RUN/configs.yaml``; other flags override the run's."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.cross_domain import CrossDomain, CrossDomainOptions, CrossResult
from analysis.expert_table import expert_table
from analysis.method_sections import particulars
from analysis.report import ReportOptions, write_report
from analysis.targets import Target, labels, named_target, own_target
from datasets.batches.evaluation_split import EvalData, captions_and_paths, eval_data
from datasets.batches.options import DataOptions, checked_images, data_groups, read_dataset, require_split
from datasets.images.decode import decode
from datasets.images.source import ImageOptions
from datasets.mannequins import draw as mannequins
from datasets.records import Dataset, counts
from model.adapters.parsing import LEAK
from model.backbones.clip_tokenizer import Tokenizer
from model.backbones.spec import BackboneOptions
from model.build import LossOptions, model_groups
from model.checkpoints.finetune import FinetuneOptions
from model.checkpoints.restore import Restored, restore
from model.matcher import restore_matcher
from model.retriever import Retriever
from processor.evaluator import Features, encode_split, table_rows
from processor.examples import Shown
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
from utils.distributed import main_first, on_main, world_size
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


def load_split(options: Options, restored: Restored, target: Target, padded: bool = False) -> tuple[Dataset, EvalData]:
    """A data set as the run's model takes it, and the split of it to test on."""
    test = options.get(TestOptions)
    flags = target.flags(options.get(DataOptions))
    flags = replace(flags, text_length=restored.text_length(flags.text_length))
    dataset = read_dataset(flags, target.drawing)
    require_split(dataset, test.test_split, "--test_split")
    image_flags, size = options.get(ImageOptions), options.get(BackboneOptions).img_size
    dataset, images = checked_images(dataset, size, flags, image_flags, (test.test_split,))
    pinned = pick_device(options.get(DeviceOptions)).type == "cuda"
    records, padded = dataset.split(test.test_split), padded or restored.model.reads_padding
    return dataset, eval_data(test.test_split, records, images, flags, padded, pinned)


def cross_domain(options: Options) -> None:
    """Print R1 and mAP of every run of ``--cross_domain`` on every data set."""
    test, cross, device_flags = options.get(TestOptions), options.get(CrossDomainOptions), options.get(DeviceOptions)
    single = [name for name in ("checkpoint", "i2t", "export_merged", "rerank", "report") if options.given(name)]
    for name in [*single, *(["config_file"] if options.config_file else [])]:
        raise ValueError(f"--{name}: not together with --cross_domain, which tests best.pth of every run")
    precision = pick_precision(device_flags, device := pick_device(device_flags))
    runs = [(path, options.over(path / "configs.yaml", UNREAD, lenient=True)) for path in cross.checked_runs()]
    own = [own_target(run.get(DataOptions), run.get(mannequins.MannequinOptions)) for _, run in runs]
    flags, drawing = options.get(DataOptions), options.get(mannequins.MannequinOptions)
    targets = [named_target(name, flags, drawing) for name in cross.targets] or list(dict.fromkeys(own))
    results = []
    for (path, run), source in zip(runs, own, strict=True):
        restored = restore(path / "best.pth", run.get)
        model = restored.model.to(device)
        if model.attends_over_batch:
            log.warning(LEAK)
        for target in targets:
            log.info("testing %s on %s %s, %s", path, target.dataset_name, test.test_split, device)
            with main_first():
                _, split = load_split(run, restored, target)
            row = table_rows(encode_split(model, split, precision), split, allow_unmatched=test.allow_unmatched)["t2i"]
            results.append(CrossResult(path, source == target, row))
    matrix = CrossDomain(tuple(labels(targets)), tuple(results))
    log.info("R1 / mAP, text to image; * the run's own data set\n%s", matrix.table().pretty())
    if cross.csv is not None:
        on_main(lambda: cross.csv.write_text(matrix.long_table().csv(), encoding="utf-8"))
        log.info("all numbers: %s", cross.csv)


def report(
    folder: Path,
    options: Options,
    restored: Restored,
    dataset: Dataset,
    split: EvalData,
    features: Features,
    rows: dict[str, dict[str, float]],
) -> None:
    """Write the page that ``--report`` asks for, with what is particular to the run's system."""
    test, images = options.get(TestOptions), dataset.split(split.name)
    facts = {
        "run": str(options.config_file.parent),
        "weights": str(test.checkpoint or "best.pth"),
        "data set": f"{dataset.name} {split.name}",
        "identities, images, captions": ", ".join(f"{number:,}" for number in counts(images)),
        "losses": options.get(LossOptions).loss_names,
    }
    tokenizer = Tokenizer()
    page = write_report(
        folder,
        options.get(ReportOptions),
        features,
        split,
        Shown(*captions_and_paths(images), decode),
        rows,
        facts,
        particulars(restored, options.get, dataset.train, lambda number: tokenizer.decode([number])),
    )
    log.info("open in a browser: %s", page, extra=NEXT)


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
    log.info("testing %s on %s %s, %s", checkpoint, flags.dataset_name, test.test_split, device)
    if restored.unknown or unused:
        roots = dict.fromkeys(".".join(key.split(".")[:2]) for key in unused)
        log.info("not used in testing: %s", ", ".join([*roots, *restored.unknown]))
    if model.attends_over_batch:
        log.warning(LEAK)
    if test.export_merged is not None:
        export_merged(model, test.export_merged)
    target = own_target(flags, options.get(mannequins.MannequinOptions))
    with main_first():
        dataset, split = load_split(options, restored, target, padded=bool(test.rerank))
    asked.require_queries(len(split.query_pids), split.name)
    features = encode_split(model.to(device), split, precision)
    rows = table_rows(features, split, test.i2t, test.allow_unmatched)
    log.info("%s", metrics_table(rows))
    if use := model.expert_use():
        log.info("tokens per expert, and entropy of their shares\n%s", expert_table(use))
    if test.rerank:
        row = rerank(model, matcher.to(device), split, features, test.rerank, precision, test.allow_unmatched)
        log.info("first %d images reranked by the matching head\n%s", test.rerank, metrics_table({"t2i": row}))
        rows[f"t2i, first {test.rerank} reranked"] = row
    if asked.report:
        folder = asked.folder(run_dir, dataset.name, split.name)
        report(folder, options, restored, dataset, split, features, rows)
    else:
        log.info("see what it gets wrong: python test.py --config_file %s --report", options.config_file, extra=NEXT)


def main(argv: Sequence[str] | None = None) -> None:
    """Test from flags; see README."""
    options = read_flags(argv)
    setup_logger()
    if options.get(CrossDomainOptions).cross_domain:
        cross_domain(options)
    else:
        test_run(options)


if __name__ == "__main__":
    run_command(main)
