"""From a model and a split to the field's table: encode every image and caption once, then rank.

Shape letters: Q queries (captions), G gallery images, D embedding.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from processor.metrics.ranks import retrieval_metrics
from utils.device import Precision
from utils.distributed import gather_rows, on_main, world_size
from utils.log import hide_bar


class DualEncoder(Protocol):
    """What the evaluator needs of a model."""

    def encode_image(self, images_BCHW: Tensor) -> NamedTuple:
        """Pixels to an object with ``pooled`` (B, D)."""

    def encode_text(self, ids_BL: Tensor) -> NamedTuple:
        """Token ids to an object with ``pooled`` (B, D)."""


class EvalSplit(NamedTuple):
    """A split ready to be encoded; of several processes each has some of the batches, and all the identities."""

    name: str
    image_batches: Iterable[Tensor]
    """uint8 pixels (B, 3, height, width)"""
    text_batches: Iterable[tuple[Tensor, Tensor]]
    """positions (B,) among the queries, token ids (B, L)"""
    query_pids: Tensor
    gallery_pids: Tensor
    prepare: Callable[[Tensor], Tensor]
    """uint8 pixels to what the image tower takes"""
    image_places: Tensor
    """positions in the gallery of what ``image_batches`` holds, in its order"""


class Features(NamedTuple):
    """A split after encoding, on the device."""

    text_QD: Tensor
    image_GD: Tensor


class Evaluation(NamedTuple):
    """What evaluating a split gives."""

    rows: dict[str, dict[str, float]]
    """``{"t2i": {R1, R5, R10, mAP, mINP}}`` in percent, and ``i2t`` on request"""
    features: Features


@torch.inference_mode()
def encode_split(model: torch.nn.Module, split: EvalSplit, precision: Precision) -> Features:
    """Features of all captions and images of a split, float32, not normalised; in every process."""
    was_training = model.training
    model.eval()
    device = precision.device
    images, texts, places = [], [], []
    for pixels in tqdm(split.image_batches, desc=f"{split.name} images", leave=False, disable=hide_bar()):
        with precision():
            images.append(model.encode_image(split.prepare(pixels.to(device, non_blocking=True))).pooled.float())
    for place, ids in tqdm(split.text_batches, desc=f"{split.name} captions", leave=False, disable=hide_bar()):
        with precision():
            texts.append(model.encode_text(ids.to(device, non_blocking=True)).pooled.float())
        places.append(place)
    model.train(was_training)
    text_Q = torch.cat(places) if places else torch.empty(0, dtype=torch.int64)
    return Features(_in_order(texts, text_Q, device), _in_order(images, split.image_places, device))


def _in_order(parts: Sequence[Tensor], places: Tensor, device: torch.device) -> Tensor:
    """The features of all processes, (N, D), each where it belongs.

    Args:
        parts: batches of this process, (B, D) each; none where there are more processes than batches.
        places: where their rows belong.
    """
    sizes = gather_rows(torch.tensor([[len(places), parts[0].shape[1] if parts else 0]]), (1,) * world_size())
    rows, (_, width) = sizes[:, 0].tolist(), sizes.amax(dim=0).tolist()
    own_ND = torch.cat([torch.empty(0, width, device=device), *parts])
    feature_ND = gather_rows(own_ND, rows)
    return torch.empty_like(feature_ND).index_copy_(0, gather_rows(places.to(device), rows), feature_ND)


def evaluate(
    model: torch.nn.Module, split: EvalSplit, precision: Precision, i2t: bool = False, allow_unmatched: bool = False
) -> Evaluation:
    """Encode a split and rank it."""
    features = encode_split(model, split, precision)
    return Evaluation(table_rows(features, split, i2t, allow_unmatched), features)


def table_rows(
    features: Features, split: EvalSplit, i2t: bool = False, allow_unmatched: bool = False
) -> dict[str, dict[str, float]]:
    """The rows of an :class:`Evaluation`, of features that are at hand already; ranked in the main process."""
    return on_main(lambda: _rank(features, split, i2t, allow_unmatched))


def pids_beside(features: Features, split: EvalSplit) -> tuple[Tensor, Tensor]:
    """Identities of the queries and of the gallery, on the features' device."""
    device = features.text_QD.device
    return split.query_pids.to(device), split.gallery_pids.to(device)


def _rank(features: Features, split: EvalSplit, i2t: bool, allow_unmatched: bool) -> dict[str, dict[str, float]]:
    query_pids, gallery_pids = pids_beside(features, split)
    rows = {
        "t2i": retrieval_metrics(
            features.text_QD, features.image_GD, query_pids, gallery_pids, allow_unmatched=allow_unmatched
        )
    }
    if i2t:
        rows["i2t"] = retrieval_metrics(
            features.image_GD, features.text_QD, gallery_pids, query_pids, allow_unmatched=allow_unmatched
        )
    return rows
