"""From flags to batches: reads a data set, tokenises it once, and serves training batches and evaluation splits.

Shape letters: B batch, L text length, N pairs of the training split.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from datasets import cuhkpedes, custom, icfgpedes, mannequins, rstpreid
from datasets.ahead import pixels_ahead
from datasets.annotations import SPLITS, read
from datasets.checks import ImageOptions, Images, prepare_images
from datasets.deletion import WordDeletion
from datasets.fields import IMAGE_FIELDS, AugmentOptions, Sample, producers_for, trim
from datasets.images import ImageError
from datasets.parallel import as_is, leave_signals_to_the_loop
from datasets.records import Dataset, ImageRecord, counts
from datasets.sampler import IdentitySampler, RandomSampler
from datasets.tokenizer import shared_tokenizer
from datasets.transforms import apply, eval_view
from utils.distributed import local_world_size, rank, world_size
from utils.logger import counts_table
from utils.options import opt

log = logging.getLogger("descry")

_TO_READ = "records_to_read"
"""batch field on its way from a loader process: the images whose pixels are still to come from the cache"""

DATASETS = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid", "Mannequins", "Custom")


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how it is batched."""

    dataset_name: str = opt("CUHK-PEDES", "data set; Mannequins is drawn on first use", choices=DATASETS)
    root_dir: Path = opt(Path("./data"), "folder that holds the data sets (for Custom: the data set itself)")
    val_dataset: str = opt("test", "split that chooses best.pth", choices=("test", "val"))
    batch_size: int = opt(128, "pairs in a training batch, over all processes")
    test_batch_size: int = opt(512, "images or captions encoded at once in evaluation")
    num_workers: int | None = opt(None, "processes that load images; default: one per core, at most 8")
    sampler: str = opt("random", "order of training pairs", choices=("random", "identity"))
    num_instance: int = opt(4, "pairs per identity in a batch of the identity sampler")
    text_length: int = opt(77, "tokens of a caption; longer ones are cut")
    seed: int = opt(1, "seed of every random choice")

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("test_batch_size", 1), ("num_instance", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: expected at least {least}")
        if not self.text_length >= 3:
            raise ValueError(f"--text_length {self.text_length}: expected at least 3 (start, one word, end)")
        if self.num_workers is not None and self.num_workers < 0:
            raise ValueError(f"--num_workers {self.num_workers}: expected 0 or more")

    @property
    def workers(self) -> int:
        """Loader processes."""
        if self.num_workers is not None:
            return self.num_workers
        return min(8, max(1, (os.cpu_count() or 1) // local_world_size()))


def read_dataset(options: DataOptions, drawing: mannequins.MannequinOptions) -> Dataset:
    """Read the annotation of the data set that the flags name; Mannequins are drawn first if they are not there.

    Raises:
        DataError: see :mod:`datasets.annotations`.
    """
    root, name = options.root_dir, options.dataset_name
    readers: dict[str, Callable[[], Dataset]] = {
        "CUHK-PEDES": lambda: cuhkpedes.load(root),
        "ICFG-PEDES": lambda: icfgpedes.load(root),
        "RSTPReid": lambda: rstpreid.load(root),
        "Mannequins": lambda: read(mannequins.ensure(root, drawing), name, ("reid_raw.json",), first_train_id=0),
        "Custom": lambda: custom.load(root),
    }
    return readers[name]()


def require_split(dataset: Dataset, split: str, flag: str) -> None:
    """Refuse a split that the data set does not have.

    Raises:
        ValueError: names the flag that asked for it, and the splits that are there.
    """
    if not dataset.split(split):
        have = " and ".join(name for name in SPLITS if dataset.split(name))
        raise ValueError(f"{flag} {split}: {dataset.name} has no such split, only {have}")


def option_groups() -> dict[str, list[type]]:
    """Titles and option dataclasses of everything about data, for the parser."""
    return {
        "data": [DataOptions, ImageOptions, AugmentOptions],
        "drawn data (Mannequins)": [mannequins.MannequinOptions],
    }


class TrainPairs(TorchDataset):
    """The (image, caption) pairs of the training split; asked for whole batches of (epoch, index)."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        images: Images,
        fields: tuple[str, ...],
        padded: tuple[str, ...],
        augment: AugmentOptions,
        text_length: int,
        seed: int,
    ) -> None:
        self.records, self.images, self.padded = tuple(records), images, padded
        self.augment, self.seed = augment, seed
        self.producers = producers_for(fields)
        self.record_N = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
        captions = [caption for record in records for caption in record.captions]
        self.tokens_NL = shared_tokenizer()(captions, text_length).numpy()
        probability = augment.word_deletion
        self.deletion = WordDeletion(captions, text_length, probability) if probability else None
        self.with_images = any(field in IMAGE_FIELDS for field in fields)

    def __len__(self) -> int:
        return len(self.record_N)

    @property
    def pids(self) -> np.ndarray:
        """(N,) identity of every pair."""
        return np.array([self.records[record].pid for record in self.record_N])

    def __getitems__(self, keys: list[tuple[int, int]]) -> "dict[str, Tensor] | ImageError":
        """A batch; an unreadable image comes back as a value, because a worker's exception would hide the message.

        Of no keys it has no rows: the share of a process in a last batch that is smaller than their number.
        """
        if not keys:
            sample = self.__getitems__([(1, 0)])
            return sample if isinstance(sample, ImageError) else {name: rows[:0] for name, rows in sample.items()}
        samples = [self._sample(epoch, index) for epoch, index in keys]
        rows = [
            {name: value for make in self.producers for name, value in make(sample, self.augment).items()}
            for sample in samples
        ]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        trim(batch, self.padded)
        if "mlm_labels" in batch:
            batch["mlm_positions"] = batch["mlm_labels"].reshape(-1).nonzero()[0]
        tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
        records_B = torch.tensor([sample.image_id for sample in samples])
        if self.with_images and self.images.cached:
            tensors[_TO_READ] = records_B
        elif self.with_images:
            try:
                tensors["pixels"] = self.read_pixels(records_B)
            except ImageError as error:
                return error
        return tensors

    def read_pixels(self, records_B: Tensor, pin_memory: bool = False) -> Tensor:
        """The images of some records, uint8 (B, 3, H, W).

        Raises:
            ImageError: a file cannot be decoded.
        """
        return self.images.read_batch([self.records[record].path for record in records_B.tolist()], pin_memory)

    def _sample(self, epoch: int, index: int) -> Sample:
        image_id = int(self.record_N[index])
        tokens_L = self.tokens_NL[index].astype(np.int64)
        sample = Sample(self.seed, epoch, index, self.records[image_id].pid, image_id, tokens_L, self.images.size)
        if self.deletion is None:
            return sample
        return replace(sample, tokens_L=self.deletion(index, sample.rng("words")))


class TrainLoader:
    """Training batches by epoch, from worker processes that live as long as the run."""

    def __init__(
        self, pairs: TrainPairs, options: DataOptions, pin_memory: bool, several_ids: Sequence[str] = ()
    ) -> None:
        """``several_ids``: losses that cannot use a batch of one identity."""
        self._pairs, self._pin_memory = pairs, pin_memory
        self._several_ids, self._pids = several_ids, pairs.pids if several_ids else np.empty(0, np.int64)
        processes = {"rank": rank(), "world_size": world_size()}
        if options.sampler == "identity":
            self._sampler = IdentitySampler(
                pairs.pids, options.batch_size, options.num_instance, options.seed, **processes
            )
        else:
            self._sampler = RandomSampler(len(pairs), options.batch_size, options.seed, **processes)
        self._loader = DataLoader(
            pairs,
            batch_sampler=self._sampler,
            num_workers=options.workers,
            collate_fn=as_is,
            worker_init_fn=leave_signals_to_the_loop,
            pin_memory=pin_memory,
            persistent_workers=options.workers > 0,
            generator=torch.Generator(),  # its own, or every pass would advance the one that dropout draws from
        )

    def steps(self, epoch: int) -> int:
        """Batches in an epoch."""
        return self._sampler.num_batches(epoch)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[dict[str, Tensor]]:
        """This process's share of the batches of an epoch, without the first ``skip``, and beside it the field
        ``share_bounds``: in which rows of the batch every process's share begins, and where the last one ends.

        Raises:
            ImageError: an image cannot be decoded; names the file.
            ValueError: a batch to come holds a single identity and a loss cannot use it.
        """
        self._sampler.set_epoch(epoch, skip)
        if self._several_ids:
            self._refuse_one_identity(epoch, skip)
        for batch, bounds in zip(self._batches(), self._sampler.bounds(epoch, skip), strict=True):
            yield batch | {"share_bounds": torch.tensor(bounds)}

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        if not (self._pairs.with_images and self._pairs.images.cached):
            yield from _good_batches(self._loader)
            return

        def pixels_of(batch: dict[str, Tensor]) -> Tensor:
            return self._pairs.read_pixels(batch[_TO_READ], self._pin_memory)

        for batch, pixels in pixels_ahead(_good_batches(self._loader), pixels_of):
            del batch[_TO_READ]
            yield batch | {"pixels": pixels}

    def _refuse_one_identity(self, epoch: int, skip: int) -> None:
        """Look at the order of an epoch before it begins: here the identities are on the CPU, and no step is lost."""
        for number, batch in enumerate(self._sampler.order(epoch)[skip:], start=skip + 1):
            if (self._pids[batch] == self._pids[batch[0]]).all():
                raise ValueError(
                    f"--loss_names {'+'.join(self._several_ids)}: needs two identities in every batch, and batch "
                    f"{number} of epoch {epoch} has {len(batch)} pair(s) of one; use another --batch_size, or with "
                    "--sampler identity a smaller --num_instance"
                )


def _good_batches(loader: DataLoader) -> Iterator[Any]:
    for batch in loader:
        if isinstance(batch, ImageError):
            raise batch
        yield batch


def prepare_batch(batch: dict[str, Tensor], device: torch.device, aliases: dict[str, str]) -> dict[str, Tensor]:
    """Move a batch to the device, make its image views there, and give one tensor a second name where asked.

    Args:
        batch: from :class:`TrainLoader`.
        device: where to.
        aliases: field name to the field whose tensor it shares.
    """
    on_cpu = {"share_bounds"}  # read by the program, which would have to wait for a GPU
    moved = {name: v if name in on_cpu else v.to(device, non_blocking=True) for name, v in batch.items()}
    pixels = moved.pop("pixels", None)
    for field in IMAGE_FIELDS:
        if field in moved:
            moved[field] = apply(pixels, moved[field])
    return moved | {name: moved[source] for name, source in aliases.items()}


class _GalleryImages(TorchDataset):
    def __init__(self, paths: Sequence[Path], images: Images) -> None:
        self.paths, self.images = tuple(paths), images

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, positions: list[int]) -> "Tensor | ImageError":
        try:
            return self.read(positions)
        except ImageError as error:
            return error

    def read(self, positions: list[int], pin_memory: bool = False) -> Tensor:
        return self.images.read_batch([self.paths[position] for position in positions], pin_memory)


class ImageBatches:
    """uint8 pixels of the gallery, in order; can be iterated again for every evaluation.

    Of several processes each gets every so many-th batch, whole: so that what a batch is made of, and with it the last
    digit of a feature, does not depend on their number.
    """

    def __init__(self, paths: Sequence[Path], images: Images, options: DataOptions, pin_memory: bool) -> None:
        batches = torch.arange(len(paths)).split(options.test_batch_size)[rank() :: world_size()]
        self.places = torch.cat([torch.empty(0, dtype=torch.int64), *batches])
        """gallery positions of the images that come"""
        self._pin_memory = pin_memory
        self._loader = DataLoader(
            _GalleryImages(paths, images),
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=options.workers,
            collate_fn=as_is,
            worker_init_fn=leave_signals_to_the_loop,
            pin_memory=pin_memory,
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Tensor]:
        gallery: _GalleryImages = self._loader.dataset
        if not gallery.images.cached:
            yield from _good_batches(self._loader)
            return
        for _, pixels in pixels_ahead(self._loader.batch_sampler, partial(gallery.read, pin_memory=self._pin_memory)):
            yield pixels


class EvalData(NamedTuple):
    """A split to evaluate: queries are all captions, the gallery all images.

    Batches are those that this process encodes, identities those of the whole split.
    """

    name: str
    image_batches: Iterable[Tensor]
    text_batches: list[tuple[Tensor, Tensor]]
    query_pids: Tensor
    gallery_pids: Tensor
    prepare: Callable[[Tensor], Tensor]
    image_places: Tensor


def eval_data(
    name: str, records: Sequence[ImageRecord], images: Images, options: DataOptions, padded: bool, pin_memory: bool
) -> EvalData:
    """Make a split ready for the evaluator.

    Captions are batched by length and cut to the longest of their batch, which changes no feature (text attention is
    causal), unless ``padded`` says that the model looks at padding; then they stay whole and in order.
    """
    tokens_QL = shared_tokenizer()([caption for record in records for caption in record.captions], options.text_length)
    length_Q = (tokens_QL != 0).sum(dim=1)
    batches = []
    order_Q = torch.arange(len(length_Q)) if padded else torch.argsort(length_Q, stable=True)
    for place in order_Q.split(options.test_batch_size):
        longest = tokens_QL.shape[1] if padded else int(length_Q[place].max())
        batches.append((place, tokens_QL[place, :longest].long()))
    gallery = ImageBatches([record.path for record in records], images, options, pin_memory)
    return EvalData(
        name,
        gallery,
        batches[rank() :: world_size()],
        torch.tensor([record.pid for record in records for _ in record.captions]),
        torch.tensor([record.pid for record in records]),
        eval_view,
        gallery.places,
    )


def captions_and_paths(records: Sequence[ImageRecord]) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """What :func:`eval_data` makes queries of, and the files of its gallery, each in its order."""
    return tuple(text for record in records for text in record.captions), tuple(record.path for record in records)


def checked_images(
    dataset: Dataset, size: tuple[int, int], options: DataOptions, images: ImageOptions, splits: Sequence[str]
) -> tuple[Dataset, Images]:
    """Check (and with ``--cache`` decode) the images of the splits in use, and log what the data set holds."""
    dataset, source = prepare_images(
        dataset, size, images, options.root_dir, workers=max(options.workers, 1), splits=splits
    )
    log.info("%s\n%s", dataset.name, counts_table({split: counts(dataset.split(split)) for split in splits}))
    return dataset, source
