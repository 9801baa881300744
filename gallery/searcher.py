"""From a query (a sentence, an image file, a photo of the gallery) to ranked photos.

Shape letters: Q queries, K hits, D embedding.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.parallel import chunked
from gallery.index import IndexedPhotos
from gallery.photos import printable
from gallery.ranking import Ranking
from model.feature_encoder import FeatureEncoder
from utils import UserError

_TEXTS_AT_ONCE = 64
_WAITING_AT_ONCE = 8
"""sentences of different threads that are answered together; with more, the first ones wait for the last"""


class PhotoHit(NamedTuple):
    """A photo that matches a query."""

    position: int
    """in the index"""
    name: str
    """path below the gallery"""
    score: float
    """cosine with the query"""


@dataclass
class _Waiting:
    """A sentence that a thread waits for the hits of."""

    text: str
    k: int
    done: bool = False
    hits: list[PhotoHit] = field(default_factory=list)
    error: Exception | None = None


class Searcher:
    """Queries to hits; may be used from several threads."""

    def __init__(self, gallery: Path, photos: IndexedPhotos, ranking: Ranking, encoder: FeatureEncoder) -> None:
        self.gallery, self.encoder = gallery.resolve(), encoder
        self._photos, self._ranking = photos, ranking
        self._lock = threading.Lock()
        self._turn, self._queue, self._answering = threading.Condition(), deque[_Waiting](), False

    def __len__(self) -> int:
        return len(self._photos.names)

    def by_texts(self, texts: Sequence[str], k: int) -> list[list[PhotoHit]]:
        """The best ``k`` photos (fewer in a small gallery) for each sentence."""
        hits = []
        for some in chunked(texts, _TEXTS_AT_ONCE):
            with self._lock:
                hits += self._hits(self.encoder.encode_text(some, progress=False).numpy(), k)
        return hits

    def by_text(self, text: str, k: int) -> list[PhotoHit]:
        """The best ``k`` photos for a sentence.

        Sentences that arrive while others are being answered are answered together: the photos are then read from
        memory once for all of them, and the text tower is used better.
        """
        own = _Waiting(text, k)
        with self._turn:
            self._queue.append(own)
        while not own.done:
            with self._turn:
                self._turn.wait_for(lambda: own.done or not self._answering)
                if own.done:
                    break
                self._answering = True
                together = [self._queue.popleft() for _ in range(min(_WAITING_AT_ONCE, len(self._queue)))]
            self._answer(together)
            with self._turn:
                self._answering = False
                self._turn.notify_all()
        if own.error is not None:
            raise own.error
        return own.hits

    def _answer(self, together: Sequence[_Waiting]) -> None:
        try:
            with self._lock:
                text_QD = self.encoder.encode_text([each.text for each in together], progress=False).numpy()
                found = self._hits(text_QD, max(each.k for each in together))
            for each, hits in zip(together, found, strict=True):
                each.hits = hits[: each.k]
        except Exception as error:  # to be raised in the threads that wait for it
            for each in together:
                each.error = error
        for each in together:
            each.done = True

    def by_image(self, path: Path, k: int) -> list[PhotoHit]:
        """The ``k`` photos most similar to an image file.

        Raises:
            ImageError: the file cannot be decoded.
        """
        with self._lock:
            return self._hits(self.encoder.encode_image([path], progress=False).numpy(), k)[0]

    def by_photo(self, position: int, k: int) -> list[PhotoHit]:
        """The ``k`` photos most similar to one of the gallery, which comes first.

        Raises:
            IndexError: there is no such photo.
        """
        self.name(position)  # refuses what is out of range
        with self._lock:
            return self._hits(np.array(self._photos.vectors_ND[position : position + 1]), k)[0]

    def _hits(self, query_QD: np.ndarray, k: int) -> list[list[PhotoHit]]:
        score_QK, position_QK = self._ranking(query_QD, min(k, len(self)))
        return [
            [PhotoHit(at, self._photos.names[at], score) for at, score in zip(row, scores, strict=True) if at >= 0]
            for row, scores in zip(position_QK.tolist(), score_QK.tolist(), strict=True)
        ]

    def name(self, position: int) -> str:
        """Path below the gallery.

        Raises:
            IndexError: there is no such photo.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"no photo has the number {position}")
        return self._photos.names[position]

    def changes(self, hits: Sequence[PhotoHit], since_ns: int) -> tuple[set[int], set[int]]:
        """Positions of the hits whose file is gone, and of those whose file was written after ``since_ns``."""
        gone, changed = set(), set()
        for hit in hits:
            try:
                written = self.path(hit.position).stat().st_mtime_ns
            except (OSError, UserError):
                gone.add(hit.position)
            else:
                if written > since_ns:
                    changed.add(hit.position)
        return gone, changed

    def path(self, position: int) -> Path:
        """The file of a photo, which is inside the gallery whatever the index or a new link says.

        Raises:
            IndexError: there is no such photo.
            UserError: its path leads out of the gallery.
        """
        path = (self.gallery / self.name(position)).resolve()
        if not path.is_relative_to(self.gallery):
            raise UserError(f"{printable(self.name(position))}: leads out of the gallery {self.gallery}")
        return path
