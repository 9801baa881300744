"""A picture of the images that some queries retrieve."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.contact_sheet import Row, draw_sheet
from processor.evaluator import EvalSplit, Features, pids_beside
from processor.metrics.scores import Retrieved, retrieve


class RawSplit(NamedTuple):
    """A split before it is encoded."""

    captions: Sequence[str]
    """of every query"""
    paths: Sequence[Path]
    """of every gallery image"""
    decode: Callable[[Path], Image.Image]
    """from a file to an upright RGB image"""


SMALL_TILE = (50, 120)
"""pixels of an image in TensorBoard, which keeps the picture of every evaluation"""


def draw_examples(features: Features, split: EvalSplit, raw: RawSplit, queries: int = 4, k: int = 6) -> np.ndarray:
    """The first ``k`` images of some queries, the same at every call: uint8 RGB (height, width, 3)."""
    total = len(raw.captions)
    chosen = [total * number // queries for number in range(min(queries, total))]
    retrieved = retrieve(features.text_QD, features.image_GD, *pids_beside(features, split), chosen, k)
    return np.asarray(draw_sheet(sheet_rows(retrieved, raw), SMALL_TILE))


def sheet_rows(retrieved: Sequence[Retrieved], raw: RawSplit) -> list[Row]:
    """Queries with their captions and decoded images, as :func:`draw_sheet` takes them."""
    return [
        Row(
            raw.captions[each.query],
            tuple((raw.decode(raw.paths[hit.position]), hit.right) for hit in each.hits),
        )
        for each in retrieved
    ]
