"""Training batches: samples are made in worker processes, their image views on the device.

Shape letters: B batch, L text length, N pairs of the training split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from datasets.augmentation import apply
from datasets.batches.evaluation_split import EvaluationSplit
from datasets.batches.fields import (
    IMAGE_FIELDS,
    TEXT_FIELDS,
    Sample,
    aliases,
    fields_to_make,
    producers_for,
    require_mask,
    trim,
)
from datasets.batches.sampler import IdentitySampler, RandomSampler
from datasets.captions import AugmentOptions, WordDeletion
from datasets.images.decode import ImageError
from datasets.images.prefetch import prefetched
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.parallel import BatchLoader
from datasets.records import ImageRecord
from utils.distributed import rank, world_size
from utils.inputs import InputFormat

_TO_READ = "records_to_read"
"""batch field on its way from a loader process: the images whose pixels are still to come from the cache"""


class TrainPairs(TorchDataset):
    """The (image, caption) pairs of the training split; asked for whole batches of (epoch, index)."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        images: Images,
        form: InputFormat,
        fields: tuple[str, ...],
        padded: tuple[str, ...],
        augment: AugmentOptions,
        seed: int,
    ) -> None:
        """
        Args:
            records: images with their captions.
            images: their pixels.
            form: how the model wants its input.
            fields: batch fields that the losses read.
            padded: text fields whose padding a loss looks at, so that it must not be cut off.
            augment: what random views are like.
            seed: of every random choice.
        """
        self.records, self.images, self.form, self.augment, self.seed = tuple(records), images, form, augment, seed
        self.padded = TEXT_FIELDS if form.reads_padding else padded
        require_mask(fields, augment, form.tokenizer)
        self.aliases = aliases(fields, augment)
        fields = fields_to_make(fields, augment)
        self.producers = producers_for(fields)
        self.record_N = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
        captions = [caption for record in records for caption in record.captions]
        self.ids_NL, self.length_N = (values.numpy() for values in form.tokenizer(captions, form.text_length))
        self.deletion = None
        if augment.word_deletion:
            self.deletion = WordDeletion(form.tokenizer, captions, form.text_length, augment.word_deletion)
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
        sample = Sample(
            seed=self.seed,
            epoch=epoch,
            index=index,
            pid=self.records[image_id].pid,
            image_id=image_id,
            tokens_L=self.ids_NL[index],
            length=int(self.length_N[index]),
            tokenizer=self.form.tokenizer,
            size=self.images.size,
        )
        if self.deletion is None:
            return sample
        tokens_L, length = self.deletion(index, sample.rng("words"))
        return replace(sample, tokens_L=tokens_L, length=length)


class Place(NamedTuple):
    """Where a run stands."""

    epoch: int
    """1 in the first epoch"""
    step: int
    """steps done in it"""
    steps: int
    """steps that it has"""


class TrainLoader:
    """Training batches on the device, epoch by epoch, from worker processes that live as long as the run.

    It knows where it stands and can be set to any step of any epoch.
    """

    def __init__(self, pairs: TrainPairs, options: DataOptions, device: torch.device) -> None:
        """Batches of ``pairs``; the options say how large, in what order, and from how many processes."""
        self._pairs, self._options, self._device = pairs, options, device
        self.pids = torch.from_numpy(pairs.pids)
        """(N,) identity of every training pair"""
        self._sampler = _sampler(pairs, options)
        self._epoch, self._step = 1, 0
        self._loader: BatchLoader | None = BatchLoader(
            pairs, self._sampler, options.workers, device, persistent_workers=options.workers > 0
        )

    @property
    def place(self) -> Place:
        """The epoch that is running, and the steps given out in it."""
        return Place(self._epoch, self._step, self.steps(self._epoch))

    def steps(self, epoch: int) -> int:
        """Batches in an epoch."""
        return self._sampler.num_batches(epoch)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Let the next batch be the one after ``step`` batches of an epoch."""
        self._epoch, self._step = epoch, step

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """This process's share of the remaining batches of the epoch, and beside it the field ``share_bounds``: in
        which rows of the batch every process's share begins, and where the last one ends.

        Raises:
            ImageError: an image cannot be decoded; names the file.
        """
        self._sampler.set_epoch(self._epoch, self._step)
        for batch, bounds in zip(self._batches(), self._sampler.bounds(), strict=True):
            ready = self._on_device(batch)
            self._step += 1
            # on the CPU: the program reads it, and would have to wait for a GPU
            yield ready | {"share_bounds": torch.tensor(bounds)}

    def close(self) -> None:
        """Give up the worker processes, which ignore signals and would otherwise keep an exiting program waiting."""
        self._loader = None

    def unaugmented(self) -> EvaluationSplit:
        """The training split as evaluation sees one: every image and caption once, as they are."""
        pairs = self._pairs
        return EvaluationSplit("train", pairs.records, pairs.images, pairs.form, self._options, self._device)

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        if not (self._pairs.with_images and self._pairs.images.cached):
            yield from self._loader
            return
        pin_memory = self._loader.pin_memory
        for batch, pixels in prefetched(self._loader, lambda each: self._pairs.read_pixels(each[_TO_READ], pin_memory)):
            del batch[_TO_READ]
            yield batch | {"pixels": pixels}

    def _on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move a batch, make its image views there, and give one tensor a second name where captions share it."""
        moved = {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}
        pixels, form = moved.pop("pixels", None), self._pairs.form
        for field in IMAGE_FIELDS:
            if field in moved:
                moved[field] = apply(pixels, moved[field], form.pixel_mean, form.pixel_std)
        return moved | {name: moved[source] for name, source in self._pairs.aliases.items()}


def _sampler(pairs: TrainPairs, options: DataOptions) -> RandomSampler | IdentitySampler:
    processes = {"rank": rank(), "world_size": world_size()}
    if options.sampler == "identity":
        return IdentitySampler(pairs.pids, options.batch_size, options.num_instance, options.seed, **processes)
    return RandomSampler(len(pairs), options.batch_size, options.seed, **processes)
