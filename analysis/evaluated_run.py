"""A trained run and a split that it was tested on: what the report and the cross-domain table are made from."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.batches.evaluation_split import EvalData, eval_data
from datasets.batches.options import DataOptions, checked_images, read_dataset, require_split
from datasets.images.source import ImageOptions
from datasets.mannequins.draw import MannequinOptions
from datasets.records import Dataset
from model.backbones.spec import BackboneOptions
from model.checkpoints.restore import Restored
from processor.evaluator import Features
from utils.device import Precision
from utils.options import Options

log = logging.getLogger("descry")


class EvaluatedRun(NamedTuple):
    """A run, the split it was tested on, and the outcome."""

    options: Options
    checkpoint: Path
    restored: Restored
    """its model has encoded the split"""
    dataset: Dataset
    split: EvalData
    features: Features
    rows: Mapping[str, Mapping[str, float]]
    """metrics in percent by row of the table, such as ``t2i``"""


def log_start(weights: Path, dataset_name: str, split: str, precision: Precision) -> None:
    """Say what the next table is of, and in which arithmetic: bfloat16 gives slightly different numbers."""
    arithmetic = str(precision.dtype).removeprefix("torch.")
    log.info("testing %s on %s %s, %s, %s", weights, dataset_name, split, precision.device, arithmetic)


def load_split(
    options: Options, restored: Restored, name: str, device: torch.device, padded: bool = False
) -> tuple[Dataset, EvalData]:
    """The data set of the flags and one of its splits, prepared for a restored model.

    Args:
        options: flags of the run.
        restored: the model that will encode the split.
        name: of the split.
        device: that will encode it.
        padded: keep captions at full length and in order, even if the model does not need it.

    Raises:
        ValueError: the data set has no such split.
    """
    flags = options.get(DataOptions)
    flags = replace(flags, text_length=restored.text_length(flags.text_length))
    dataset = read_dataset(flags, options.get(MannequinOptions))
    require_split(dataset, name, "--test_split")
    size = options.get(BackboneOptions).img_size
    dataset, images = checked_images(dataset, size, flags, options.get(ImageOptions), (name,))
    padded = padded or restored.model.reads_padding
    return dataset, eval_data(name, dataset.split(name), images, flags, padded, device.type == "cuda")
