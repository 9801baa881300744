"""Photos, image files and sentences to float32 features of length 1.

Shape letters: B batch, Q queries, D embedding, L text positions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.augmentation import normalise
from datasets.images.decode import load_resized
from gallery.index import EncodedPhotos
from gallery.photos import PhotoBatch
from model.backbones.spec import Encoded
from model.retriever import Retriever
from utils.inputs import InputFormat


@dataclass(frozen=True)
class FeatureEncoder:
    """A model with what it takes to encode photos and queries."""

    model: Retriever
    inputs: InputFormat

    def photos(self, batches: Iterable[PhotoBatch]) -> Iterator[EncodedPhotos]:
        """Encode a gallery, batch by batch."""
        return (EncodedPhotos(names, self.images(pixels_BCHW), faults) for names, pixels_BCHW, faults in batches)

    def image_file(self, path: Path) -> np.ndarray:
        """(1, D) of an image file.

        Raises:
            ImageError: the file cannot be decoded.
        """
        return self.images(torch.from_numpy(load_resized(path, self.inputs.image_size))[None])

    def images(self, pixels_BCHW: Tensor) -> np.ndarray:
        """(B, D) of uint8 pixels."""
        mean, std = self.inputs.pixel_mean, self.inputs.pixel_std
        return self._encode(lambda pixels: self.model.encode_image(normalise(pixels, mean, std)), pixels_BCHW)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(Q, D) of sentences, truncated to the length that the model reads; see :meth:`truncation`."""
        ids_QL, lengths_Q = self.inputs.tokenizer(texts, self.inputs.text_length)
        if not self.inputs.reads_padding:
            ids_QL = ids_QL[:, : int(lengths_Q.max())]
        return self._encode(self.model.encode_text, ids_QL, lengths_Q)

    def truncation(self, text: str) -> str | None:
        """What to tell a user whose query is too long, otherwise None."""
        tokenizer = self.inputs.tokenizer
        length, room = len(tokenizer.encode(text)), self.inputs.text_length - tokenizer.num_special
        return f"query truncated from {length} to {room} tokens" if length > room else None

    @torch.inference_mode()
    def _encode(self, encode: Callable[..., Encoded], *inputs: Tensor) -> np.ndarray:
        """Features of inputs with one row per sample."""
        if not len(inputs[0]):
            return np.empty((0, 0), np.float32)
        inputs = [tensor.to(self.model.precision.device, non_blocking=True) for tensor in inputs]
        # A model that attends over the batch gets each sample alone: no feature may depend on its neighbours.
        size = 1 if self.model.attends_over_batch else len(inputs[0])
        parts = zip(*(tensor.split(size) for tensor in inputs), strict=True)
        feature_BD = torch.cat([encode(*part).feature for part in parts])
        return torch.nn.functional.normalize(feature_BD, dim=1).cpu().numpy()
