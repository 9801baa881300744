"""What training samples are made of: the pairs of the training split, with everything random about them.

Shape letters: B batch, L text length, N pairs of the training split.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from datasets.batches.fields import (
    TEXT_FIELDS,
    Sample,
    aliases,
    fields_to_make,
    image_views,
    producers_for,
    refuse_unread,
    require_mask,
    trim,
)
from datasets.batches.sampler import BatchSampler, EqualSampler, IdentitySampler, RandomSampler
from datasets.captions import AugmentOptions, WordDeletion, augment_tokens
from datasets.images.decode import ImageError
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.records import ImageRecord
from utils import UserError
from utils.distributed import rank, world_size
from utils.inputs import InputFormat

_NO_TOKENS = np.empty(0, np.int64)
TO_READ = "records_to_read"
"""batch field on its way from a loader process: the images whose pixels are still to come from the cache"""


class TrainPairs(TorchDataset):
    """The (image, caption) pairs of the training split; asked for whole batches of (epoch, index).

    A third number in a key is :attr:`Sample.visit`.
    """

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
        self._prepare(images, form, fields, padded, augment, seed)
        self.records = tuple(records)
        self.record_N = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
        captions = [caption for record in records for caption in record.captions]
        self.translation_N: np.ndarray | None = None
        """(N,) the row of a pair's back translation behind the captions, -1 where it has none"""
        if augment.back_translation:
            texts = [text for record in records for text in record.back_translations or [""] * len(record.captions)]
            has_N = np.array([bool(text) for text in texts])
            self.translation_N = np.where(has_N, len(captions) + np.cumsum(has_N) - 1, -1)
            captions += [text for text in texts if text]
        self.ids_NL, self.length_N = (values.numpy() for values in form.tokenizer(captions, form.text_length))
        pids_N = self.pids
        self._by_pid_N = pids_N.argsort(kind="stable")
        self._sorted_pids_N = pids_N[self._by_pid_N]
        self.deletion = None
        if augment.word_deletion:
            self.deletion = WordDeletion(form.tokenizer, captions, form.text_length, augment.word_deletion)

    def _prepare(
        self,
        images: Images,
        form: InputFormat,
        fields: tuple[str, ...],
        padded: tuple[str, ...],
        augment: AugmentOptions,
        seed: int,
    ) -> None:
        """What does not depend on where the pairs come from."""
        self.images, self.form, self.seed = images, form, seed
        self.padded = TEXT_FIELDS if form.reads_padding else padded
        require_mask(fields, augment, form.tokenizer)
        refuse_unread(fields, augment)
        self._choose(fields, augment)

    def _choose(self, fields: tuple[str, ...], augment: AugmentOptions, plain: bool = False) -> None:
        self.augment, self.aliases = augment, aliases(fields, augment)
        made = fields_to_make(fields, augment)
        self.views = image_views(made, augment, plain)
        self.producers = producers_for(made, self.views)
        self._needs_original = any(view.needs_original for view in self.views.values())

    def with_fields(self, fields: tuple[str, ...], plain: bool) -> "TrainPairs":
        """The same pairs with other batch fields; ``plain``: without any augmentation."""
        other = copy.copy(self)
        other._choose(fields, AugmentOptions() if plain else self.augment, plain)
        if plain:
            other.deletion = other.translation_N = None
        return other

    def __len__(self) -> int:
        return len(self.record_N)

    @property
    def pids(self) -> np.ndarray:
        """(N,) identity of every pair."""
        return np.array([self.records[record].pid for record in self.record_N])

    def __getitems__(self, keys: Sequence[tuple[int, ...]]) -> "dict[str, Tensor] | ImageError":
        """A batch; an unreadable image comes back as a value, because a worker's exception would hide the message.

        Of no keys it has no rows: the share of a process in a last batch that is smaller than their number.
        """
        if not keys:
            sample = self.__getitems__([(1, 0)])
            return sample if isinstance(sample, ImageError) else {name: rows[:0] for name, rows in sample.items()}
        try:
            samples = [self._sample(*key) for key in keys]
        except ImageError as error:
            return error
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
        if self.views and self.images.cached:
            tensors[TO_READ] = records_B
        elif self.views:
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

    def _sample(self, epoch: int, index: int, visit: int = 0) -> Sample:
        image_id = self._image_of(index)
        sample = Sample(
            seed=self.seed,
            epoch=epoch,
            index=index,
            pid=self._pid_of(image_id),
            image_id=image_id,
            tokens_L=_NO_TOKENS,
            length=0,
            tokenizer=self.form.tokenizer,
            size=self.images.size,
            original=self._original(image_id) if self._needs_original else (0, 0),
            visit=visit,
        )
        tokens_L, length = self._caption(sample)
        if self.augment.txt_aug:  # before any masking, so that all fields are made of the same caption
            tokens_L, length = augment_tokens(tokens_L, length, sample.tokenizer, sample.rng("txt_aug"))
        return replace(sample, tokens_L=tokens_L, length=length)

    def _image_of(self, index: int) -> int:
        return int(self.record_N[index])

    def _pid_of(self, image_id: int) -> int:
        return self.records[image_id].pid

    def _caption(self, sample: Sample) -> tuple[np.ndarray, int]:
        """(L,) ids of the caption of a pair, perhaps without some words, and how many are tokens."""
        row = self._row_of_text(sample)
        if self.deletion is not None:
            return self.deletion(row, sample.rng("words"))
        return self.ids_NL[row], int(self.length_N[row])

    def _row_of_text(self, sample: Sample) -> int:
        """The row of a caption, perhaps of another one of the identity, or that of its back translation."""
        row, rng = sample.index, sample.rng("identity_captions")
        if self.augment.identity_captions and rng.random() < self.augment.identity_captions:
            pairs = self._pairs_of(sample.pid)
            row = int(pairs[rng.integers(len(pairs))])
        translated = -1 if self.translation_N is None else int(self.translation_N[row])
        if translated < 0 or sample.rng("back_translation").random() >= self.augment.back_translation:
            return row
        return translated

    def _pairs_of(self, pid: int) -> np.ndarray:
        """The pairs of an identity."""
        first, end = np.searchsorted(self._sorted_pids_N, (pid, pid + 1))
        return self._by_pid_N[first:end]

    def _original(self, image_id: int) -> tuple[int, int]:
        return self.images.original_size(self.records[image_id].path)

    def sampler(self, options: DataOptions) -> BatchSampler:
        """The order of training. Raises UserError where flags do not fit."""
        share = {"rank": rank(), "world_size": world_size()}
        if options.joint_sampling == "equal":
            if len(options.dataset_names) == 1 or options.sampler == "identity":
                needs = "several data sets in --dataset_name" if options.sampler == "random" else "--sampler random"
                raise UserError(f"--joint_sampling equal: needs {needs}")
            sets = [self.records[record].part for record in self.record_N]
            return EqualSampler(sets, options.batch_size, options.seed, **share)
        if options.sampler == "identity":
            return IdentitySampler(self.pids, options.batch_size, options.num_instance, options.seed, **share)
        return random_sampler(len(self), options)


def random_sampler(total: int, options: DataOptions, **more: Any) -> RandomSampler:
    """Random batches of ``total`` samples; ``more``: arguments of :class:`RandomSampler`."""
    return RandomSampler(total, options.batch_size, options.seed, rank=rank(), world_size=world_size(), **more)
