"""From a query (a sentence, an image file, a photo of the gallery) to ranked photos.

Shape letters: B batch, Q queries, K hits, D embedding, L text positions.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from gallery.index import Encoded, Photos
from gallery.ranking import Ranking
from processor.evaluator import DualEncoder
from utils.device import Precision

_TEXTS_AT_ONCE = 64


class Encoder(DualEncoder, Protocol):
    """A dual encoder that says what its features depend on."""

    reads_padding: bool
    """whether a caption must keep its padding"""
    attends_over_batch: bool
    """whether a feature depends on the rest of its batch"""


class Tokenizer(Protocol):
    """Captions to ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of a caption of any length, without start and end."""

    def __call__(self, texts: Sequence[str], length: int) -> Tensor:
        """Ids (Q, L) of captions, cut to a length that start and end are part of."""


class PhotoBatch(Protocol):
    """Some photos, as a loader decodes them."""

    names: list[str]
    pixels_BCHW: Tensor
    faults: dict[str, str]


@dataclass(frozen=True)
class Features:
    """A model with what it takes to encode photos and queries. Gives float32 features of length 1."""

    model: Encoder
    """on the device of ``precision``"""
    precision: Precision
    tokenizer: Tokenizer
    text_length: int
    prepare: Callable[[Tensor], Tensor]
    """uint8 pixels to what the image tower takes"""
    read_image: Callable[[Path], np.ndarray]
    """an image file to uint8 pixels (3, H, W), as those of the gallery"""

    def photos(self, batches: Iterable[PhotoBatch]) -> Iterator[Encoded]:
        """Encode a gallery, batch by batch."""
        for batch in batches:
            yield Encoded(batch.names, self.images(batch.pixels_BCHW), batch.faults)

    def image(self, path: Path) -> np.ndarray:
        """(1, D) of an image file.

        Raises:
            ValueError: the file cannot be decoded.
        """
        return self.images(torch.from_numpy(self.read_image(path))[None])

    def images(self, pixels_BCHW: Tensor) -> np.ndarray:
        """(B, D) of uint8 pixels."""
        return self._encode(pixels_BCHW, lambda pixels: self.model.encode_image(self.prepare(pixels)))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(Q, D) of sentences, which are cut to the length that the model takes; see :meth:`cut`."""
        ids_QL = self.tokenizer(texts, self.text_length)
        if not self.model.reads_padding:
            ids_QL = ids_QL[:, : int((ids_QL != 0).sum(dim=1).max())]
        return self._encode(ids_QL, self.model.encode_text)

    def cut(self, text: str) -> str | None:
        """What to tell somebody whose query is too long, otherwise None."""
        length, room = len(self.tokenizer.encode(text)), self.text_length - 2
        if length <= room:
            return None
        return f"the query has {length} tokens and the model reads {room}: its end plays no part"

    @torch.inference_mode()
    def _encode(self, values: Tensor, encode: Callable[[Tensor], NamedTuple]) -> np.ndarray:
        # Of a model that attends across the batch, each alone: or a photo's feature would depend on its neighbours.
        size = 1 if self.model.attends_over_batch else max(len(values), 1)
        parts = []
        for part in values.split(size) if len(values) else ():
            with self.precision():
                parts.append(encode(part.to(self.precision.device, non_blocking=True)).pooled.float())
        if not parts:
            return np.empty((0, 0), np.float32)
        return torch.nn.functional.normalize(torch.cat(parts), dim=1).cpu().numpy()


class Hit(NamedTuple):
    """A photo that was found."""

    position: int
    """in the index"""
    name: str
    """path below the gallery"""
    score: float
    """cosine with the query"""


class Searcher:
    """Queries to hits; may be used from several threads."""

    def __init__(self, gallery: Path, photos: Photos, ranking: Ranking, features: Features) -> None:
        self.gallery, self.features = gallery.resolve(), features
        self._photos, self._ranking = photos, ranking
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._photos.names)

    def by_texts(self, texts: Sequence[str], k: int) -> list[list[Hit]]:
        """The best ``k`` photos (fewer in a small gallery) for each sentence."""
        hits = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            with self._lock:
                hits += self._hits(self.features.texts(texts[start : start + _TEXTS_AT_ONCE]), k)
        return hits

    def by_image(self, path: Path, k: int) -> list[Hit]:
        """The ``k`` photos that look most like an image file.

        Raises:
            ValueError: the file cannot be decoded.
        """
        with self._lock:
            return self._hits(self.features.image(path), k)[0]

    def by_photo(self, position: int, k: int) -> list[Hit]:
        """The ``k`` photos that look most like one of the gallery, which is the first of them.

        Raises:
            IndexError: there is no such photo.
        """
        self.name(position)
        with self._lock:
            return self._hits(np.array(self._photos.vectors_ND[position : position + 1]), k)[0]

    def _hits(self, query_QD: np.ndarray, k: int) -> list[list[Hit]]:
        score_QK, position_QK = self._ranking(query_QD, min(k, len(self)))
        return [
            [Hit(at, self._photos.names[at], score) for at, score in zip(row, scores, strict=True) if at >= 0]
            for row, scores in zip(position_QK.tolist(), score_QK.tolist(), strict=True)
        ]

    def name(self, position: int) -> str:
        """Path below the gallery.

        Raises:
            IndexError: there is no such photo.
        """
        if not 0 <= position < len(self):
            raise IndexError(position)
        return self._photos.names[position]

    def path(self, position: int) -> Path:
        """The file of a photo, which is inside the gallery whatever the index or a new link says.

        Raises:
            IndexError: there is no such photo.
            ValueError: its path leads out of the gallery.
        """
        name = self.name(position)
        path = (self.gallery / name).resolve()
        if not path.is_relative_to(self.gallery):
            raise ValueError(f"{shown(name)}: leads out of the gallery {self.gallery}")
        return path


def shown(name: str) -> str:
    """A path as it can be printed: bytes that are no UTF-8 and control characters are replaced."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
