"""A second look at the first K gallery images of every query, with a cross encoder that reads both sides together.

Shape letters: Q queries (captions), K images per query that are looked at again, C captions held at once, L text
positions, M image tokens, D embedding, P pairs of a caption and one of its K images, B batch.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from processor.evaluator import EvalSplit, Features, pids_beside
from processor.metrics.ranks import rank_gallery, retrieval_metrics
from utils.device import Precision

TOKEN_BYTES = (1 << 32, 1 << 30)
"""caption tokens held at once, on a GPU and on a CPU; more captions than fit take further passes over the gallery"""
PAIRS_AT_ONCE = (512, 64)
"""pairs in one call of the matcher: on a GPU, and on a CPU, where their tokens should stay in its cache"""

Matcher = Callable[[Tensor, Tensor], Tensor]
"""caption tokens (P, L, D) and image tokens (P, M, D) to scores (P,), higher for a better match"""


def rerank(
    model: torch.nn.Module,
    matcher: Matcher,
    split: EvalSplit,
    features: Features,
    k: int,
    precision: Precision,
    allow_unmatched: bool = False,
) -> dict[str, float]:
    """R@k, mAP and mINP after the first ``k`` images of every query are put in the order of their matching scores.

    The matching score alone decides among these; equal scores keep the order of the cosine. All other images stay where
    they were, so R@k does not change for k = ``k`` and beyond.

    Args:
        model: encodes images and captions to tokens.
        matcher: scores pairs.
        split: with captions padded to one length, as the matcher saw them in training.
        features: of the split, from the same model.
        k: images per query, cut to the gallery.
        precision: arithmetic of network layers.
        allow_unmatched: as in :func:`utils.metrics.retrieval_metrics`.

    Raises:
        ValueError: a score is not finite.
    """
    position_QK = rank_gallery(features.text_QD, features.image_GD, k)[1]
    score_QK = match_scores(model, matcher, split, position_QK, precision)
    if not score_QK.isfinite().all():
        raise ValueError(f"--rerank {k}: the matching head gives scores that are not finite; its training diverged")
    order_QK = score_QK.sort(dim=1, descending=True, stable=True).indices
    return retrieval_metrics(
        *(features.text_QD, features.image_GD, *pids_beside(features, split)),
        allow_unmatched=allow_unmatched,
        first_QK=position_QK.gather(1, order_QK),
    )


@torch.inference_mode()
def match_scores(
    model: torch.nn.Module, matcher: Matcher, split: EvalSplit, position_QK: Tensor, precision: Precision
) -> Tensor:
    """Matching scores (Q, K) of every query with the gallery images at ``position_QK``.

    Caption tokens are kept, as many as fit :data:`TOKEN_BYTES`; image tokens are made batch by batch and dropped.
    """
    was_training = model.training
    model.eval()
    score_QK = torch.full(position_QK.shape, torch.nan, device=position_QK.device)
    with tqdm(desc=f"{split.name} pairs", total=position_QK.numel(), leave=False, disable=None) as bar:
        for row_C, text_CLD in _caption_chunks(model, split, precision):
            position_CK = position_QK[row_C]
            start = 0
            for pixels in split.image_batches:
                here_CK = (position_CK >= start) & (position_CK < start + len(pixels))
                text_P, place_P = here_CK.nonzero(as_tuple=True)
                if len(text_P):
                    with precision():
                        image_BMD = model.encode_image(split.prepare(pixels.to(precision.device))).tokens
                    image_P = position_CK[text_P, place_P] - start
                    score_P = _score_pairs(matcher, (text_CLD, text_P), (image_BMD, image_P), precision, bar)
                    score_QK[row_C[text_P], place_P] = score_P
                start += len(pixels)
    model.train(was_training)
    return score_QK


def _caption_chunks(model: torch.nn.Module, split: EvalSplit, precision: Precision) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions (C,) among the queries and tokens (C, L, D) of as many captions as may be held at once."""
    room = TOKEN_BYTES[precision.device.type == "cpu"]
    rows, tokens, held = [], [], 0
    for row_B, ids_BL in split.text_batches:
        with precision():
            text_BLD = model.encode_text(ids_BL.to(precision.device, non_blocking=True)).tokens
        if held and held + text_BLD.nbytes > room:
            yield torch.cat(rows), torch.cat(tokens)
            rows, tokens, held = [], [], 0
        rows.append(row_B.to(precision.device))
        tokens.append(text_BLD)
        held += text_BLD.nbytes
    yield torch.cat(rows), torch.cat(tokens)


def _score_pairs(
    matcher: Matcher, texts: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor], precision: Precision, bar: tqdm
) -> Tensor:
    """Scores (P,) of pairs; ``texts`` and ``images`` are the tokens of a block each and where in it a pair's are."""
    size = PAIRS_AT_ONCE[precision.device.type == "cpu"]
    scores = []
    for text_P, image_P in zip(texts[1].split(size), images[1].split(size), strict=True):
        with precision():
            scores.append(matcher(texts[0][text_P], images[0][image_P]).float())
        bar.update(len(text_P))
    return torch.cat(scores)
