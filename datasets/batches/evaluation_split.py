"""TODO"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from datasets.augmentation import eval_view
from datasets.batches.options import DataOptions
from datasets.batches.train_loader import _good_batches
from datasets.images.decode import ImageError
from datasets.images.prefetch import pixels_ahead
from datasets.images.source import Images
from datasets.parallel import as_is, leave_signals_to_the_loop
from datasets.records import ImageRecord
from model.backbones.clip_tokenizer import shared_tokenizer
from utils.distributed import rank, world_size


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
