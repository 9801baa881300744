"""From flags to a data set that is read and checked, and to batches of it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from prettytable import PrettyTable

from datasets import DATASETS
from datasets.annotations import SPLITS
from datasets.back_translation import add_back_translations
from datasets.batches.evaluation_split import EvaluationSplit
from datasets.batches.train_loader import TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions, caption_oddities
from datasets.images.source import ImageOptions, Images
from datasets.images.verify import prepare_images
from datasets.label_noise import NoiseOptions, exchange_captions
from datasets.options import DataOptions
from datasets.records import Dataset, counts
from utils import UserError
from utils.inputs import InputFormat
from utils.options import GetOptions

log = logging.getLogger("descry")


@dataclass(frozen=True)
class OpenedDataset:
    """A data set with the pixels of its images."""

    dataset: Dataset
    images: Images
    options: DataOptions
    augment: AugmentOptions

    def train_loader(
        self, form: InputFormat, fields: tuple[str, ...], padded: tuple[str, ...], device: torch.device
    ) -> TrainLoader:
        """Training batches; see :class:`TrainPairs` for the arguments."""
        pairs = TrainPairs(self.dataset.train, self.images, form, fields, padded, self.augment, self.options.seed)
        return TrainLoader(pairs, self.options, device, self.dataset.caption_index)

    def split(self, name: str, form: InputFormat, device: torch.device) -> EvaluationSplit:
        """A split to evaluate on; see :class:`EvaluationSplit` for the arguments."""
        images = self.images.with_filter(form.resize_filter)
        return EvaluationSplit(name, self.dataset.split(name), images, form, self.options, device)


def open_dataset(
    get: GetOptions, size: tuple[int, int], splits: Mapping[str, str], eval_filter: str = "bilinear"
) -> OpenedDataset:
    """Read the data set that the flags name, check its images (with ``--cache`` decode them), add label noise, and log
    what it holds.

    Args:
        get: gives the instance of an options dataclass.
        size: (H, W) of the images in pixels.
        splits: the splits in use, each with the flag that asks for it.
        eval_filter: what images are resized with in evaluation.

    Raises:
        UserError: the data set cannot be used, or lacks a split.
    """
    options = get(DataOptions)
    dataset = DATASETS[options.dataset_name](options.root_dir, get)
    for split, flag in splits.items():
        if not dataset.split(split):
            have = " and ".join(name for name in SPLITS if dataset.split(name))
            raise UserError(f"{flag} {split}: {dataset.name} has no such split, only {have}")
    options.check_workers()
    workers = max(options.workers, 1)
    dataset, images = prepare_images(
        dataset,
        size,
        get(ImageOptions),
        options.root_dir,
        workers=workers,
        splits=tuple(splits),
        eval_filter=eval_filter,
    )
    if "train" in splits:  # after images were left out: what is exchanged are the captions that are trained on
        dataset = exchange_captions(add_back_translations(dataset, get(AugmentOptions)), get(NoiseOptions))
    for leak in dataset.leaks:
        log.warning("%s: %s; what is trained on is tested on, and scores are too high", dataset.name, leak)
    captions = [caption for split in splits for record in dataset.split(split) for caption in record.captions]
    if oddities := caption_oddities(captions):
        log.warning("%s: %s; they are used as they are", dataset.name, "; ".join(oddities))
    table = PrettyTable(["split", "identities", "images", "captions"], align="r")
    for split in splits:
        table.add_row([split, *(f"{number:,}" for number in counts(dataset.split(split)))])
    log.info("%s\n%s", dataset.name, table)
    return OpenedDataset(dataset, images, options, get(AugmentOptions))
