"""The pairs of the training split of a data set whose records are in memory.

Shape letters: B batch, L text length, N pairs of the training split.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from torch import Tensor

from datasets.batches.fields import Sample
from datasets.batches.pairs import Pairs
from datasets.batches.sampler import BatchSampler, EqualSampler, IdentitySampler, RandomSampler, rows_by_identity
from datasets.captions import AugmentOptions, WordDeletion
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.records import ImageRecord
from utils import UserError
from utils.distributed import rank, world_size
from utils.inputs import InputFormat


class TrainPairs(Pairs):
    """The (image, caption) pairs of the training split."""

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
        """``records``: images with their captions; otherwise see :class:`Pairs`."""
        super().__init__(images, form, fields, padded, augment, seed)
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
        self._pairs_of = rows_by_identity(self.pids) if augment.identity_captions else {}
        self.deletion = None
        if augment.word_deletion:
            self.deletion = WordDeletion(form.tokenizer, captions, form.text_length, augment.word_deletion)

    def with_fields(self, fields: tuple[str, ...], plain: bool) -> Self:
        """See the base class."""
        other = super().with_fields(fields, plain)
        if plain:
            other.deletion = other.translation_N = None
        return other

    def __len__(self) -> int:
        return len(self.record_N)

    @property
    def pids(self) -> np.ndarray:
        """(N,) identity of every pair."""
        return np.array([self.records[record].pid for record in self.record_N])

    def read_pixels(self, records_B: Tensor, pin_memory: bool = False) -> Tensor:
        """See the base class."""
        return self.images.read_batch([self.records[record].path for record in records_B.tolist()], pin_memory)

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
        row = sample.index
        if self.augment.identity_captions:
            rng, pairs = sample.rng("identity_captions"), self._pairs_of[sample.pid]
            if rng.random() < self.augment.identity_captions:
                row = int(pairs[rng.integers(len(pairs))])
        translated = -1 if self.translation_N is None else int(self.translation_N[row])
        if translated < 0 or sample.rng("back_translation").random() >= self.augment.back_translation:
            return row
        return translated

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
