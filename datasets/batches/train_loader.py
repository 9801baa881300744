"""From flags to batches: reads a data set, tokenises it once, and serves training batches and evaluation splits.

Shape letters: B batch, L text length, N pairs of the training split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from datasets.augmentation import apply
from datasets.batches.fields import IMAGE_FIELDS, Sample, producers_for, trim
from datasets.batches.options import DataOptions
from datasets.batches.sampler import IdentitySampler, RandomSampler
from datasets.captions import AugmentOptions, WordDeletion
from datasets.images.decode import ImageError
from datasets.images.prefetch import pixels_ahead
from datasets.images.source import Images
from datasets.parallel import as_is, leave_signals_to_the_loop
from datasets.records import ImageRecord
from model.backbones.clip_tokenizer import shared_tokenizer
from utils.distributed import rank, world_size

_TO_READ = "records_to_read"
"""batch field on its way from a loader process: the images whose pixels are still to come from the cache"""


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
