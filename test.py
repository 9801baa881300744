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

import datasets.build as data
import model.build as models
from model.adapters.parsing import LEAK
from model.finetune import FinetuneOptions
from model.matcher import restore_matcher
from model.restore import restore
from model.weights import BackboneOptions
from processor.evaluate import encode_split, table_rows
from processor.rerank import rerank
from processor.train import LoopOptions
from solver.build import SolverOptions
from solver.schedule import ScheduleOptions
from utils.checkpoint import write_checkpoint
from utils.distributed import DeviceOptions, pick_device, pick_precision
from utils.logger import expert_table, log_to, metrics_table, setup_logger
from utils.options import Options, opt, parse
from utils.run import PUBLISHED_WITHOUT_EFFECT, RunOptions, run_command


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


GROUPS = {"test": [TestOptions, DeviceOptions], **data.option_groups(), **models.option_groups()}
"""every flag of test.py, by section of --help"""
TRAINING_ONLY = (RunOptions, FinetuneOptions, SolverOptions, ScheduleOptions, LoopOptions)

log = logging.getLogger("descry")


def export_merged(model: models.Retriever, path: Path) -> None:
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


def main(argv: Sequence[str] | None = None) -> None:
    """Test from flags; see README."""
    options = read_flags(argv)
    test, flags = options.get(TestOptions), options.get(data.DataOptions)
    if options.config_file is None:
        raise ValueError("--config_file: say which run to test, as in --config_file logs/.../configs.yaml")
    run_dir = options.config_file.parent
    setup_logger()
    if os.access(run_dir, os.W_OK):
        log_to(run_dir / "test_log.txt")
    device_flags = options.get(DeviceOptions)
    precision = pick_precision(device_flags, device := pick_device(device_flags))
    checkpoint = test.checkpoint or run_dir / "best.pth"
    restored = restore(checkpoint, options.get)
    model, unused = restored.model, restored.unused
    if test.rerank:
        matcher, used = restore_matcher(restored.state, model.clip.sizes.embed_dim, str(checkpoint))
        unused = [key for key in unused if key not in used]
    log.info("testing %s on %s %s, %s", checkpoint, flags.dataset_name, test.test_split, device)
    if restored.unknown or unused:
        roots = dict.fromkeys(".".join(key.split(".")[:2]) for key in unused)
        log.info("not used in testing: %s", ", ".join([*roots, *restored.unknown]))
    if model.attends_over_batch:
        log.warning(LEAK)
    flags = replace(flags, text_length=restored.text_length(flags.text_length))
    if test.export_merged is not None:
        export_merged(model, test.export_merged)
    dataset = data.read_dataset(flags, options.get(data.mannequins.MannequinOptions))
    data.require_split(dataset, test.test_split, "--test_split")
    image_flags, size = options.get(data.ImageOptions), options.get(BackboneOptions).img_size
    dataset, images = data.checked_images(dataset, size, flags, image_flags, (test.test_split,))
    pinned = device.type == "cuda"
    padded = bool(test.rerank) or model.reads_padding
    split = data.eval_data(test.test_split, dataset.split(test.test_split), images, flags, padded, pinned)
    features = encode_split(model.to(device), split, precision)
    log.info("%s", metrics_table(table_rows(features, split, test.i2t, test.allow_unmatched)))
    if use := model.expert_use():
        log.info("tokens per expert, and entropy of their shares\n%s", expert_table(use))
    if test.rerank:
        row = rerank(model, matcher.to(device), split, features, test.rerank, precision, test.allow_unmatched)
        log.info("first %d images reranked by the matching head\n%s", test.rerank, metrics_table({"t2i": row}))


if __name__ == "__main__":
    run_command(main)
