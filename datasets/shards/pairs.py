"""Training pairs out of folders of shards: captions are tokenised, and images decoded, when their turn comes.

Shape letters: B batch, L text length, N pairs of an epoch without a mix, F folders.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.batches.fields import Sample
from datasets.batches.pairs import Pairs
from datasets.batches.sampler import BatchSampler
from datasets.captions import AugmentOptions, WordDeletion
from datasets.images.decode import resized
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.shards.index import ShardIndex
from datasets.shards.options import ShardOptions
from datasets.shards.order import ShardOrder, block_edges
from utils import UserError
from utils.distributed import rank, share_bounds, world_size
from utils.inputs import InputFormat

_BLOCK = 256
"""images that are read from one stretch of a shard"""


class ShardFolders:
    """Several folders of shards as one: images, captions and identities are numbered through."""

    def __init__(self, indexes: Sequence[ShardIndex]) -> None:
        self.indexes = tuple(indexes)
        self._first_image_F = np.cumsum([0, *map(len, indexes)])
        self._first_caption_F = np.cumsum([0, *(index.captions for index in indexes)])
        self._first_pid_F = np.cumsum([0, *(index.num_ids for index in indexes)])

    @property
    def counts(self) -> tuple[int, int, int]:
        """(identities, images, captions)."""
        return int(self._first_pid_F[-1]), int(self._first_image_F[-1]), int(self._first_caption_F[-1])

    def image_of_caption(self, caption: int) -> int:
        """The image that a caption belongs to."""
        folder = _folder(self._first_caption_F, caption)
        within = caption - int(self._first_caption_F[folder])
        return int(self._first_image_F[folder]) + self.indexes[folder].image_of_caption(within)

    def captions_of(self, image: int) -> range:
        """The captions of an image."""
        folder, within = self._locate(image)
        first = int(self._first_caption_F[folder])
        start, stop = self.indexes[folder].caption_start_N[within : within + 2].tolist()
        return range(first + start, first + stop)

    def caption(self, caption: int) -> str:
        """The text of a caption."""
        folder = _folder(self._first_caption_F, caption)
        return self.indexes[folder].caption(caption - int(self._first_caption_F[folder]))

    def pid_of(self, image: int) -> int:
        """The identity of an image: its own, where the annotation has none."""
        folder, within = self._locate(image)
        return int(self._first_pid_F[folder]) + self.indexes[folder].identity(within)

    def pids(self) -> np.ndarray:
        """Identities of all images, int64."""
        parts = zip(self._first_pid_F.tolist(), self.indexes, strict=False)
        return np.concatenate([first + index.identities_of_all() for first, index in parts])

    def picture(self, image: int) -> Image.Image:
        """An image, decoded. Raises ImageError."""
        folder, within = self._locate(image)
        return self.indexes[folder].picture(within)

    def original_size(self, image: int) -> tuple[int, int]:
        """(height, width) of an image. Raises ImageError."""
        folder, within = self._locate(image)
        return self.indexes[folder].original_size(within)

    def _locate(self, image: int) -> tuple[int, int]:
        folder = _folder(self._first_image_F, image)
        return folder, image - int(self._first_image_F[folder])


def _folder(first_F: np.ndarray, number: int) -> int:
    return int(np.searchsorted(first_F, number, "right")) - 1


class ShardPairs(Pairs):
    """The pairs of folders of shards: one for each caption, or with ``--captions one`` one for each image."""

    def __init__(
        self,
        folders: ShardFolders,
        shard_options: ShardOptions,
        images: Images,
        form: InputFormat,
        fields: tuple[str, ...],
        padded: tuple[str, ...],
        augment: AugmentOptions,
        seed: int,
    ) -> None:
        """See :class:`Pairs`; ``images`` says the size of the images and what they are resized with."""
        super().__init__(images, form, fields, padded, augment, seed)
        self.folders, self._shard_options = folders, shard_options
        self._by_caption = shard_options.captions == "all"

    def __len__(self) -> int:
        _, images, captions = self.folders.counts
        return captions if self._by_caption else images

    @property
    def records(self) -> tuple:
        """Not to be had: raises UserError."""
        raise UserError("--dataset_name Shards: losses that look at the whole training split first cannot be used")

    @property
    def pids(self) -> np.ndarray:
        """(N,) identity of every pair."""
        pids = self.folders.pids()
        if not self._by_caption:
            return pids
        return np.repeat(pids, np.concatenate([np.diff(index.caption_start_N) for index in self.folders.indexes]))

    def read_pixels(self, records_B: Tensor, pin_memory: bool = False) -> Tensor:
        """See the base class."""
        pixels_BCHW = torch.empty((len(records_B), 3, *self.images.size), dtype=torch.uint8, pin_memory=pin_memory)
        for image, row_CHW in zip(records_B.tolist(), pixels_BCHW.numpy(), strict=True):
            np.copyto(row_CHW, resized(self.folders.picture(image), self.images.size, self.images.resize_filter))
        return pixels_BCHW

    def sampler(self, options: DataOptions) -> "ShardSampler":
        """See the base class."""
        return ShardSampler(self.order, options.batch_size, options.seed, rank(), world_size())

    @cached_property
    def order(self) -> ShardOrder:
        """The order of every epoch."""
        edges = []
        for index in self.folders.indexes:
            images_K = block_edges(index.first_S, _BLOCK)
            edges.append(index.caption_start_N[images_K] if self._by_caption else images_K)
        return ShardOrder(edges, self._shard_options.mix or (1.0,) * len(edges), self.seed)

    def _image_of(self, index: int) -> int:
        return self.folders.image_of_caption(index) if self._by_caption else index

    def _pid_of(self, image_id: int) -> int:
        return self.folders.pid_of(image_id)

    def _caption(self, sample: Sample) -> tuple[np.ndarray, int]:
        number = sample.index
        if not self._by_caption:
            captions = self.folders.captions_of(sample.image_id)
            number = captions[int(sample.rng("caption").integers(len(captions)))]
        text, tokenizer, length = self.folders.caption(number), self.form.tokenizer, self.form.text_length
        if self.augment.word_deletion:
            deletion = WordDeletion(tokenizer, [text], length, self.augment.word_deletion)
            return deletion(0, sample.rng("words"))
        return tokenizer.framed(tokenizer.encode(text), length)

    def _original(self, image_id: int) -> tuple[int, int]:
        return self.folders.original_size(image_id)


class ShardSampler(BatchSampler):
    """Batches in the order of the shards; what comes at a position is computed when it is reached."""

    def __init__(self, order: ShardOrder, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        super().__init__(batch_size, seed, rank, world_size)
        self._samples = order

    def num_batches(self, epoch: int) -> int:
        """See the base class."""
        return -(-len(self._samples) // self.batch_size)

    def bounds(self) -> list[list[int]]:
        """See the base class."""
        whole = share_bounds(self.batch_size, self._world_size)
        last = len(self._samples) - (self.num_batches(self._epoch) - 1) * self.batch_size
        return [whole] * (len(self) - 1) + [share_bounds(last, self._world_size)] * (len(self) > 0)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        bounds = self.bounds()
        for batch in range(self._skip, self.num_batches(self._epoch)):
            share = bounds[batch - self._skip]
            first = batch * self.batch_size
            own = self._samples.samples(self._epoch, first + share[self._rank], first + share[self._rank + 1])
            yield [(self._epoch, index) for index in own.tolist()]
