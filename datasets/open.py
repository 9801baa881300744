"""From flags to a data set that is read and checked, and to batches of it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from prettytable import PrettyTable

from datasets.back_translation import add_back_translations
from datasets.batches.evaluation_split import EvaluationSplit
from datasets.batches.train_loader import TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions, caption_oddities
from datasets.images.source import ImageOptions, Images
from datasets.images.verify import prepare_images
from datasets.joint import read_datasets
from datasets.label_noise import NoiseOptions, exchange_captions
from datasets.options import DataOptions
from datasets.records import Dataset, counts
from datasets.shards.open import OpenedShards, open_shards
from datasets.shards.options import SHARDS
from utils import UserError
from utils.inputs import InputFormat
from utils.options import GetOptions, Options

log = logging.getLogger("descry")


@dataclass(frozen=True)
class OpenedDataset:
    """A data set with the pixels of its images."""

    dataset: Dataset
    images: Images
    options: DataOptions
    augment: AugmentOptions

    @property
    def train_counts(self) -> tuple[int, int, int]:
        """(identities, images, pairs) of the training split."""
        return counts(self.dataset.train)

    @property
    def annotations(self) -> tuple[Path, ...]:
        """The files that the data set was read from."""
        return self.dataset.files

    def train_loader(
        self, form: InputFormat, fields: tuple[str, ...], padded: tuple[str, ...], device: torch.device
    ) -> TrainLoader:
        """Training batches; see :class:`TrainPairs` for the arguments."""
        pairs = TrainPairs(self.dataset.train, self.images, form, fields, padded, self.augment, self.options.seed)
        return TrainLoader(pairs, self.options, device, self.dataset.caption_index)

    def split(self, name: str, form: InputFormat, device: torch.device) -> EvaluationSplit:
        """A split to evaluate on, of a single data set; see :class:`EvaluationSplit` for the arguments."""
        (split,) = self.splits(name, form, device).values()
        return split

    def splits(self, name: str, form: InputFormat, device: torch.device) -> dict[str, EvaluationSplit]:
        """A split to evaluate on of each of the data sets, by their names."""
        images, parts = self.images.with_filter(form.resize_filter), self.dataset.by_part(name)
        return {
            part: EvaluationSplit(name, records, images, form, self.options, device) for part, records in parts.items()
        }


def open_for_training(
    options: Options, size: tuple[int, int], eval_filter: str
) -> tuple[OpenedDataset | OpenedShards, dict[str, OpenedDataset]]:
    """What is trained on; and what ``--val_dataset`` of which is evaluated, by name: the same or ``--val_sets``.

    See :func:`open_dataset` for the other arguments, and errors.
    """
    data = options.get(DataOptions)
    own_split = {} if data.val_sets else {data.val_dataset: "--val_dataset"}
    opened = open_dataset(options.get, size, {"train": "--dataset_name"} | own_split, eval_filter)
    if not data.val_sets:
        return opened, {data.dataset_name: opened}
    names = [text.partition("=")[0] for text in data.val_sets]
    val_sets = {}
    for text, name in zip(data.val_sets, names, strict=True):
        get = options.replaced(dataset_name=name, root_dir=Path(text.partition("=")[2])).get
        label = name if names.count(name) == 1 else text
        val_sets[label] = open_dataset(get, size, {data.val_dataset: f"--val_sets {text}: --val_dataset"}, eval_filter)
    return opened, val_sets


def evaluation_splits(
    opened: Mapping[str, OpenedDataset], name: str, form: InputFormat, device: torch.device
) -> dict[str, EvaluationSplit]:
    """A split of data sets that were opened by their names, or of the parts of the only one; see :meth:`split`."""
    if len(opened) == 1:
        return next(iter(opened.values())).splits(name, form, device)
    return {label: each.split(name, form, device) for label, each in opened.items()}


def open_dataset(
    get: GetOptions, size: tuple[int, int], splits: Mapping[str, str], eval_filter: str = "bilinear"
) -> OpenedDataset | OpenedShards:
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
    if options.dataset_name == SHARDS:
        return open_shards(get, size, splits)
    dataset = read_datasets(options.dataset_names, options.root, get, splits)
    options.check_workers()
    workers = max(options.workers, 1)
    dataset, images = prepare_images(
        dataset,
        size,
        get(ImageOptions),
        options.root,
        workers=workers,
        splits=tuple(splits),
        eval_filter=eval_filter,
    )
    for split in splits:
        for name, records in dataset.by_part(split).items():
            if not records:
                raise UserError(f"--bad_images skip: no image of {name} {split} can be used")
    if "train" in splits:  # after images were left out: what is exchanged are the captions that are trained on
        dataset = exchange_captions(add_back_translations(dataset, get(AugmentOptions)), get(NoiseOptions))
    for leak in dataset.leaks:
        log.warning("%s: %s; what is trained on is tested on, and scores are too high", dataset.name, leak)
    captions = [caption for split in splits for record in dataset.split(split) for caption in record.captions]
    if oddities := caption_oddities(captions):
        log.warning("%s: %s; they are used as they are", dataset.name, "; ".join(oddities))
    table = PrettyTable(["split", "identities", "images", "captions"], align="r")
    for split in splits:
        for name, records in dataset.by_part(split).items():
            label = f"{split}, {name}" if dataset.parts else split
            table.add_row([label, *(f"{number:,}" for number in counts(records))])
    log.info("%s\n%s", dataset.name, table)
    return OpenedDataset(dataset, images, options, get(AugmentOptions))
