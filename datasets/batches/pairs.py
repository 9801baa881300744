"""What samples for training are made of, wherever images and captions come from.

Shape letters: B batch, L text length, N pairs of an epoch.
"""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

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
from datasets.batches.sampler import BatchSampler
from datasets.captions import AugmentOptions, augment_tokens
from datasets.images.decode import ImageError
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.records import ImageRecord
from utils.inputs import InputFormat

_NO_TOKENS = np.empty(0, np.int64)
TO_READ = "records_to_read"
"""batch field on its way from a loader process: the images whose pixels are still to come from the cache"""


class Pairs(TorchDataset):
    """(image, caption) pairs with everything random about them; asked for whole batches of (epoch, index).

    A third number in a key is :attr:`Sample.visit`.
    """

    records: Sequence[ImageRecord]
    """images with their captions, of the whole training split"""

    def __init__(
        self,
        images: Images,
        form: InputFormat,
        fields: tuple[str, ...],
        padded: tuple[str, ...],
        augment: AugmentOptions,
        seed: int,
    ) -> None:
        """
        Args:
            images: size of the images, what they are resized with, and where TrainPairs has their pixels from.
            form: how the model wants its input.
            fields: batch fields that the losses read.
            padded: text fields whose padding a loss looks at, so that it must not be cut off.
            augment: what random views are like.
            seed: of every random choice.
        """
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

    def with_fields(self, fields: tuple[str, ...], plain: bool) -> Self:
        """The same pairs with other batch fields; ``plain``: without any augmentation."""
        other = copy.copy(self)
        other._choose(fields, AugmentOptions() if plain else self.augment, plain)
        return other

    @abstractmethod
    def __len__(self) -> int:
        """Number of pairs."""

    @property
    @abstractmethod
    def pids(self) -> np.ndarray:
        """(N,) identity of every pair."""

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

    @abstractmethod
    def read_pixels(self, records_B: Tensor, pin_memory: bool = False) -> Tensor:
        """The images of some records, uint8 (B, 3, H, W).

        Raises:
            ImageError: a file cannot be decoded.
        """

    @abstractmethod
    def sampler(self, options: DataOptions) -> BatchSampler:
        """The order of training. Raises UserError where flags do not fit."""

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

    @abstractmethod
    def _image_of(self, index: int) -> int:
        """The image of a pair."""

    @abstractmethod
    def _pid_of(self, image_id: int) -> int:
        """The identity of an image."""

    @abstractmethod
    def _caption(self, sample: Sample) -> tuple[np.ndarray, int]:
        """(L,) ids of a pair's caption, and how many are tokens."""

    @abstractmethod
    def _original(self, image_id: int) -> tuple[int, int]:
        """Height and width of an image's file."""
