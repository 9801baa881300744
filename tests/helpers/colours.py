"""A model that knows three colours: small enough to see what a search should find."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gallery.index import GalleryIndex
from gallery.open import encoded
from gallery.options import RankingOptions
from gallery.photos import find_photos, photo_batches
from gallery.ranking import build_ranking
from gallery.searcher import Searcher
from model.feature_encoder import FeatureEncoder
from utils.device import Precision
from utils.inputs import InputFormat, Tokenizer

SIZE = (8, 4)
COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


class Pooled(NamedTuple):
    feature: Tensor


class ColourModel:
    """Features are mean colours; a word counts as its pure colour, and the rest of a batch shifts them on request."""

    precision = Precision(torch.device("cpu"), torch.float32)

    def __init__(self, attends_over_batch: bool = False) -> None:
        self.attends_over_batch = attends_over_batch

    def encode_image(self, images_BCHW: Tensor) -> Pooled:
        return self._shifted(images_BCHW.mean(dim=(2, 3)))

    def encode_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Pooled:
        return self._shifted(torch.stack([(ids_BL == number).any(dim=1).float() for number in (1, 2, 3)], dim=1))

    def _shifted(self, x_BD: Tensor) -> Pooled:
        return Pooled(x_BD + x_BD.sum(dim=0) if self.attends_over_batch else x_BD)


class Words(Tokenizer):
    """1, 2, 3 for the colours, 9 for any other word, 8 at both ends."""

    start_id = end_id = 8
    pad_id = 0

    def encode(self, text: str) -> list[int]:
        return [list(COLOURS).index(word) + 1 if word in COLOURS else 9 for word in text.split()]


def paint(path: Path, colour: str, size: tuple[int, int] = (20, 40)) -> None:
    """A photo of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour]).save(path)


def colour_encoder(model: ColourModel | None = None, reads_padding: bool = False) -> FeatureEncoder:
    inputs = InputFormat(Words(), 6, reads_padding, SIZE, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1))
    return FeatureEncoder(model or ColourModel(), inputs)


def colour_index(gallery: Path, folder: Path) -> GalleryIndex:
    """An index of ``gallery`` that is up to date."""
    index = GalleryIndex(folder, {"model": "colours"}, 3)
    encoder = colour_encoder()
    batches = partial(photo_batches, folder=gallery, size=SIZE, batch_size=2, workers=0)
    index.update(find_photos(gallery).stamps, lambda names: encoded(batches(names), encoder))
    return index


def colour_searcher(gallery: Path, folder: Path) -> Searcher:
    index = colour_index(gallery, folder)
    photos = index.read()
    return Searcher(gallery, photos, build_ranking(photos, folder, RankingOptions()), colour_encoder())


def unit_rows(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Random float32 rows of length 1."""
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
