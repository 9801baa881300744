"""A trained run and a split that it was tested on: what the report and the cross-domain table are made from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets.batches.evaluation_split import EvaluationSplit
from datasets.open import open_dataset
from datasets.options import DataOptions
from datasets.records import Dataset
from model.adapters.parsing import LEAK
from model.checkpoints.restore import RestoredRun
from model.retriever import Retriever
from processor.evaluator import Features
from utils import UserError
from utils.options import Options, opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class TestOptions:
    """What to test, and how."""

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
            raise UserError(f"--rerank {self.rerank}: expected 0 (off) or a number of images")


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


def log_start(weights: Path, dataset_name: str, split: str, model: Retriever) -> None:
    """Say what the next table is of, and in which arithmetic: bfloat16 gives slightly different numbers."""
    log.info("testing %s on %s %s, %s", weights, dataset_name, split, model.precision)
    if model.attends_over_batch:
        log.warning(LEAK)


def load_split(options: Options, model: Retriever, name: str, padded: bool = False) -> tuple[Dataset, EvaluationSplit]:
    """The data set of the flags and one of its splits, prepared for a model.

    Args:
        options: flags of the run.
        model: will encode the split.
        name: of the split.
        padded: keep captions at full length and in order, even if the model does not need it.

    Raises:
        UserError: the data set cannot be used, or has no such split.
    """
    form = model.input_format(options.get(DataOptions).text_length)
    opened = open_dataset(options.get, form.image_size, {name: "--test_split"})
    form = form._replace(reads_padding=padded or form.reads_padding)
    return opened.dataset, opened.split(name, form, model.precision.device)
