"""From flags to folders of shards that are ready to be trained on."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from prettytable import PrettyTable

from datasets.batches.train_loader import TrainLoader
from datasets.captions import AugmentOptions
from datasets.images.source import ImageOptions, Images
from datasets.label_noise import NoiseOptions
from datasets.options import DataOptions
from datasets.shards.index import INDEX, ShardIndex
from datasets.shards.options import SHARDS, ShardOptions
from datasets.shards.pairs import ShardFolders, ShardPairs
from utils import UserError
from utils.inputs import InputFormat
from utils.options import GetOptions

log = logging.getLogger("descry")


@dataclass(frozen=True)
class OpenedShards:
    """Folders of shards, to be trained on; they have no other split."""

    folders: ShardFolders
    options: DataOptions
    shard_options: ShardOptions
    images: Images
    augment: AugmentOptions

    @property
    def train_counts(self) -> tuple[int, int, int]:
        """(identities, images, pairs)."""
        identities, images, captions = self.folders.counts
        return identities, images, captions if self.shard_options.captions == "all" else images

    @property
    def annotations(self) -> tuple[Path, ...]:
        """The files that say what is in the folders."""
        return tuple(index.folder / INDEX / "index.json" for index in self.folders.indexes)

    def train_loader(
        self, form: InputFormat, fields: tuple[str, ...], padded: tuple[str, ...], device: torch.device
    ) -> TrainLoader:
        """Training batches; see :class:`ShardPairs` for the arguments."""
        images, seed = self.images, self.options.seed
        pairs = ShardPairs(self.folders, self.shard_options, images, form, fields, padded, self.augment, seed)
        return TrainLoader(pairs, self.options, device)


def open_shards(get: GetOptions, size: tuple[int, int], splits: Mapping[str, str]) -> OpenedShards:
    """Open the folders of ``--root_dir`` and log what they hold; see ``open_dataset`` for the arguments.

    Raises:
        UserError: a folder is not usable, or flags do not fit shards.
    """
    options, own = get(DataOptions), get(ShardOptions)
    for split, flag in splits.items():
        if split != "train":
            raise UserError(
                f"{flag} {split}: {SHARDS} has none; evaluate on other data with --val_sets NAME=ROOT_DIR, and test "
                "with --dataset_name NAME --root_dir ROOT_DIR"
            )
    _refuse(get, own, len(options.roots))
    options.check_workers()
    folders = ShardFolders([ShardIndex(root) for root in options.roots])
    for index in folders.indexes:
        _require_size(index, size)
    weights = own.mix or (1.0,) * len(folders.indexes)
    table = PrettyTable(["folder", "identities", "images", "captions", "visits per epoch"], align="r")
    for index, weight in zip(folders.indexes, weights, strict=True):
        if not len(index):
            raise UserError(f"--root_dir {index.folder}: holds no image")
        ids = f"{index.identities:,}" if index.identities else "not known"
        table.add_row([str(index.folder), ids, f"{len(index):,}", f"{index.captions:,}", f"{weight:g}"])
    log.info("%s\n%s", SHARDS, table)
    return OpenedShards(folders, options, own, Images(size), get(AugmentOptions))


def _require_size(index: ShardIndex, size: tuple[int, int]) -> None:
    resized = tuple(index.about.get("resize") or size)
    if resized != tuple(size):
        have, wanted = (" ".join(map(str, each)) for each in (resized, size))
        raise UserError(
            f"--root_dir {index.folder}: its images were resized to {have} on import, --img_size is {wanted}; give "
            f"--img_size {have}, or import them with --resize {wanted} or as they are"
        )


def _refuse(get: GetOptions, own: ShardOptions, folders: int) -> None:
    """What would have no effect or cannot be had."""
    images, augment, noise = get(ImageOptions), get(AugmentOptions), get(NoiseOptions)
    if own.mix and len(own.mix) != folders:
        shown = " ".join(f"{weight:g}" for weight in own.mix)
        raise UserError(
            f"--mix {shown}: expected a number for each folder of --root_dir ({folders}), found {len(own.mix)}"
        )
    if get(DataOptions).sampler != "random":
        raise UserError(f"--sampler {get(DataOptions).sampler}: not with --dataset_name {SHARDS}, only random")
    given = {
        "cache": images.cache,
        "bad_images skip": images.bad_images == "skip",
        "back_translation": augment.back_translation,
        "identity_captions": augment.identity_captions,
        "noisy_rate": noise.noisy_rate,
        "noisy_file": noise.noisy_file,
    }
    for flag in (name for name, value in given.items() if value):
        raise UserError(f"--{flag}: not with --dataset_name {SHARDS}, whose images and captions were checked on import")
