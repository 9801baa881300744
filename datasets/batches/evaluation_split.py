"""A split ready to be encoded: queries are all captions, the gallery all images.

Shape letters: Q queries, G gallery images, B batch, L text positions.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from datasets.augmentation.pixels import normalise
from datasets.images.decode import ImageError
from datasets.images.prefetch import prefetched
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.parallel import BatchLoader
from datasets.records import ImageRecord
from utils.distributed import rank, world_size
from utils.inputs import InputFormat


class EvaluationSplit:
    """Batches of a split that this process encodes, on the device; identities, captions and files of all of it.

    Captions are batched by length and cut to the longest of their batch, which changes no feature, unless the model
    looks at padding; then they stay whole and in order. Of N processes each gets every N-th batch, whole: the content
    of a batch, and with it the last digit of a feature, does not depend on their number.
    """

    def __init__(
        self,
        name: str,
        records: Sequence[ImageRecord],
        images: Images,
        form: InputFormat,
        options: DataOptions,
        device: torch.device,
    ) -> None:
        """A split by ``name``, its images, their pixels, and how (``form``) and where the model wants its input."""
        self.name, self.records, self.images, self._form, self._device = name, tuple(records), images, form, device
        self.query_pids = torch.tensor([record.pid for record in records for _ in record.captions])
        """(Q,)"""
        self.gallery_pids = torch.tensor([record.pid for record in records])
        """(G,)"""
        self.captions = tuple(caption for record in records for caption in record.captions)
        """the sentence of every query"""
        self.paths = tuple(record.path for record in records)
        """the file of every gallery image"""
        self._captions = self._batch_captions(options.test_batch_size)
        places = torch.arange(len(records)).split(options.test_batch_size)[rank() :: world_size()]
        self.gallery_positions = torch.cat([torch.empty(0, dtype=torch.int64), *places])
        """gallery positions of what :meth:`image_batches` gives, in its order"""
        self._places = [place.tolist() for place in places]
        self._gallery = _GalleryImages(self.paths, images)
        self.num_image_batches, self.num_text_batches = len(self._places), len(self._captions)
        """of this process"""
        self._loader = BatchLoader(self._gallery, self._places, options.workers, device)

    def image_batches(self) -> Iterator[Tensor]:
        """Normalised pixels (B, 3, H, W) of the gallery."""
        for pixels in self._pixels():
            pixels = pixels.to(self._device, non_blocking=True)
            yield normalise(pixels, self._form.pixel_mean, self._form.pixel_std)

    def text_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Query positions (B,) on the CPU; token ids (B, L) and lengths (B,) on the device."""
        for place, ids, lengths in self._captions:
            yield place, ids.to(self._device, non_blocking=True), lengths.to(self._device, non_blocking=True)

    def _batch_captions(self, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        ids_QL, length_Q = self._form.tokenizer(self.captions, self._form.text_length)
        whole = self._form.reads_padding
        order_Q = torch.arange(len(length_Q)) if whole else torch.argsort(length_Q, stable=True)
        batches = []
        for place in order_Q.split(size):
            longest = ids_QL.shape[1] if whole else int(length_Q[place].max())
            batches.append((place, ids_QL[place, :longest], length_Q[place]))
        return batches[rank() :: world_size()]

    def _pixels(self) -> Iterator[Tensor]:
        if not self.images.cached:
            yield from self._loader
            return
        pin_memory = self._loader.pin_memory
        for _, pixels in prefetched(self._places, lambda places: self._gallery.read(places, pin_memory)):
            yield pixels


class _GalleryImages(TorchDataset):
    def __init__(self, paths: Sequence[Path], images: Images) -> None:
        self.paths, self.images = paths, images

    def __getitems__(self, positions: list[int]) -> "Tensor | ImageError":
        try:
            return self.read(positions)
        except ImageError as error:
            return error

    def read(self, positions: list[int], pin_memory: bool = False) -> Tensor:
        return self.images.read_batch([self.paths[position] for position in positions], pin_memory)
