"""Pictures of what some queries find."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.contact_sheet import Row, Tile, draw_sheet
from processor.evaluator import EvalSplit, Features, pids_beside
from processor.metrics.scores import Retrieved, retrieve


class Shown(NamedTuple):
    """A split as people see it."""

    captions: Sequence[str]
    """of every query"""
    paths: Sequence[Path]
    """of every gallery image"""
    decode: Callable[[Path], Image.Image]
    """from a file to an upright RGB image"""


SMALL_TILE = (50, 120)
"""pixels of an image in TensorBoard, which keeps the picture of every evaluation"""


def draw_examples(features: Features, split: EvalSplit, shown: Shown, queries: int = 4, k: int = 6) -> np.ndarray:
    """The first ``k`` images of some queries, the same at every call: uint8 RGB (height, width, 3)."""
    total = len(shown.captions)
    chosen = [total * number // queries for number in range(min(queries, total))]
    found = retrieve(features.text_QD, features.image_GD, *pids_beside(features, split), chosen, k)
    return np.asarray(draw_sheet(sheet_rows(found, shown), SMALL_TILE, decode=shown.decode))


def sheet_rows(found: Sequence[Retrieved], shown: Shown) -> list[Row]:
    """Retrievals with their captions and images."""
    return [
        Row(shown.captions[each.query], [Tile(shown.paths[hit.position], right=hit.right) for hit in each.hits])
        for each in found
    ]
