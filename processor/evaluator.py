"""From a model and a split to the field's table: encode every image and caption once, then rank.

Shape letters: Q queries (captions), G gallery images, D embedding.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.batches.evaluation_split import EvaluationSplit
from datasets.contact_sheet import Row, Tile, draw_sheet
from model.retriever import Retriever
from processor.metrics import METRICS
from processor.metrics.metric import Metric
from processor.metrics.ranks import QueryMetrics, rank_matches, require_matches, summarise
from processor.metrics.scores import Retrieved, retrieve
from utils import UserError
from utils.distributed import gather_rows, on_main, world_size
from utils.log import hide_bar

log = logging.getLogger("descry")

EQUAL = 1e-6
"""largest difference between the numbers of two features of length 1 that count as the same"""

SMALL_TILE = (50, 120)
"""pixels of an image in TensorBoard, which keeps the picture of every evaluation"""


class Features(NamedTuple):
    """A split after encoding, on the device."""

    text_QD: Tensor
    """float32, not normalised"""
    image_GD: Tensor
    query_pids: Tensor
    gallery_pids: Tensor


class Evaluation(NamedTuple):
    """What evaluating a split gives."""

    rows: dict[str, dict[str, float]]
    """``{"t2i": {R1, R5, R10, mAP, mINP}}`` in percent, and ``i2t`` and ``t2i EMBEDDING`` on request"""
    features: Features
    queries: dict[str, QueryMetrics]
    """what each row is the mean of, on the CPU"""


class Evaluator:
    """Encodes a split with a model and ranks it."""

    def __init__(self, model: Retriever, split: EvaluationSplit) -> None:
        self.model, self.split = model, split

    def evaluate(
        self,
        i2t: bool = False,
        allow_unmatched: bool = False,
        each_embedding: bool = False,
        refuse_equal: bool = False,
        metrics: Mapping[str, Metric] = METRICS,
    ) -> Evaluation:
        """Table rows and features of the split; ranked in the main process.

        Args:
            i2t: rank captions for images as well.
            allow_unmatched: leave out queries without any match, and count them.
            each_embedding: also rank by each embedding alone, of a model that has several.
            refuse_equal: whether a model that gives all images, or all captions, one feature is an error, because its
                ranks are those of chance; otherwise, as in training, it is a warning.
            metrics: the columns of the table.

        Raises:
            UserError: a query has no match, or features are not finite, or all equal.
        """
        features = encode_split(self.model, self.split)
        for name, feature_ND in (("images", features.image_GD), ("captions", features.text_QD)):
            if _all_equal(feature_ND):
                problem = f"all {len(feature_ND)} {name} have the same feature: the weights tell nothing apart"
                if refuse_equal:
                    raise UserError(f"{problem}; test another checkpoint")
                log.warning("%s, and the ranks are those of chance", problem)
        embeddings = self.model.embeddings if each_embedding else {}
        rows, queries = on_main(lambda: _rank(features, i2t, allow_unmatched, embeddings, metrics))
        return Evaluation(rows, features, queries)

    def picture(self, features: Features, queries: int = 4, k: int = 6) -> np.ndarray:
        """The first ``k`` images of some queries, the same at every call: uint8 RGB (height, width, 3)."""
        total = len(self.split.captions)
        chosen = [total * number // queries for number in range(min(queries, total))]
        rows = sheet_rows(retrieve(*features, chosen, k), self.split)
        return np.asarray(draw_sheet(rows, SMALL_TILE, decode=self.split.images.picture))


def sheet_rows(found: Sequence[Retrieved], split: EvaluationSplit) -> list[Row]:
    """Rows of a contact sheet: queries with the images that they find."""
    captions, paths = split.captions, split.paths
    return [
        Row(captions[each.query], [Tile(paths[hit.position], right=hit.right) for hit in each.hits]) for each in found
    ]


@torch.inference_mode()
def encode_split(model: Retriever, split: EvaluationSplit) -> Features:
    """Features of all captions and images of a split, in every process."""
    was_training = model.training
    model.eval()
    device = model.precision.device
    images, texts, positions = [], [], []
    bar = {"leave": False, "disable": hide_bar()}
    for pixels in tqdm(split.image_batches(), f"{split.name} images", split.num_image_batches, **bar):
        images.append(model.encode_image(pixels).feature)
    for position, ids, lengths in tqdm(split.text_batches(), f"{split.name} captions", split.num_text_batches, **bar):
        texts.append(model.encode_text(ids, lengths).feature)
        positions.append(position)
    model.train(was_training)
    text_Q = torch.cat(positions) if positions else torch.empty(0, dtype=torch.int64)
    return Features(
        _in_order(texts, text_Q, device),
        _in_order(images, split.gallery_positions, device),
        split.query_pids.to(device),
        split.gallery_pids.to(device),
    )


def _all_equal(feature_ND: Tensor) -> bool:
    unit_ND = torch.nn.functional.normalize(feature_ND, dim=1)
    return len(unit_ND) > 1 and bool((unit_ND - unit_ND[0]).abs().max() < EQUAL)


def _in_order(parts: Sequence[Tensor], positions: Tensor, device: torch.device) -> Tensor:
    """The features of all processes, (N, D), each at its position.

    ``parts`` are the batches (B, D) of this process, none where there are more processes than batches.
    """
    sizes = gather_rows(torch.tensor([[len(positions), parts[0].shape[1] if parts else 0]]), (1,) * world_size())
    rows, (_, width) = sizes[:, 0].tolist(), sizes.amax(dim=0).tolist()
    feature_ND = gather_rows(torch.cat([torch.empty(0, width, device=device), *parts]), rows)
    return torch.empty_like(feature_ND).index_copy_(0, gather_rows(positions.to(device), rows), feature_ND)


def _rank(
    features: Features, i2t: bool, allow_unmatched: bool, embeddings: Mapping[str, int], metrics: Mapping[str, Metric]
) -> tuple[dict[str, dict[str, float]], dict[str, QueryMetrics]]:
    text_QD, image_GD, query_pids, gallery_pids = features
    parts = {"": (text_QD, image_GD)}
    if embeddings:
        sides = (side.split(tuple(embeddings.values()), dim=1) for side in (text_QD, image_GD))
        parts |= {f" {name}": pair for name, pair in zip(embeddings, zip(*sides, strict=True), strict=True)}
    retrievals = {f"t2i{name}": (text, image, query_pids, gallery_pids) for name, (text, image) in parts.items()}
    if i2t:
        retrievals |= {f"i2t{name}": (image, text, gallery_pids, query_pids) for name, (text, image) in parts.items()}
    for *_, queries, gallery in retrievals.values():
        require_matches(queries, gallery, allow_unmatched)
    ranked = {name: rank_matches(*retrieval, metrics).cpu() for name, retrieval in retrievals.items()}
    return {name: summarise(each) for name, each in ranked.items()}, ranked
