"""A second look at the first K gallery images of every query, with a cross encoder that reads both sides together.

Shape letters: Q queries (captions), K images per query that are looked at again, C captions held at once, L text
positions, M image tokens, D embedding, P pairs of a caption and one of its K images, B batch.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.batches.evaluation_split import EvaluationSplit
from model.matcher import Matcher
from model.retriever import Retriever
from processor.evaluator import Features
from processor.metrics import METRICS
from processor.metrics.metric import Metric, ScoreMetric
from processor.metrics.nearest import rank_gallery
from processor.metrics.ranks import QueryMetrics, rank_matches
from utils import UserError
from utils.log import hide_bar

TOKEN_BYTES = (1 << 32, 1 << 30)
"""caption tokens held at once, on a GPU and on a CPU; more captions than fit take further passes over the gallery"""
PAIRS_AT_ONCE = (512, 64)
"""pairs in one call of the matcher: on a GPU, and on a CPU, where their tokens should stay in its cache"""


def rerank(
    model: Retriever,
    matcher: Matcher,
    split: EvaluationSplit,
    features: Features,
    k: int,
    temperature: float | None = None,
    metrics: Mapping[str, Metric] = METRICS,
) -> QueryMetrics:
    """What each query contributes to the table's row after the first ``k`` images of every query are ranked again.

    The score of these is cosine / temperature + matching score. A matcher whose negatives were drawn in proportion to
    exp(cosine / temperature) learns the log odds of a pair over these draws, which is what the cosine does not know
    (noise-contrastive estimation, Gutmann & Hyvärinen, JMLR 2012, whose noise here is the dual encoder); their sum is
    the log odds of the pair. Equal scores keep the order of the cosine. All other images stay where they were, so R@k
    does not change for k = ``k`` and beyond.

    Args:
        model, matcher: one encodes images and captions to tokens, the other scores pairs of them.
        split: with captions padded to one length, as the matcher saw them in training.
        features: of the split, from the same model.
        k: images per query, cut to the gallery.
        temperature: that of the draws; None: the matching score alone decides.
        metrics: the columns of the table, of which those that need similarities are left out: a matching score is none.

    Raises:
        UserError: a score is not finite.
    """
    cosine_QK, position_QK = rank_gallery(features.text_QD, features.image_GD, k)
    score_QK = match_scores(model, matcher, split, position_QK)
    if temperature is not None:
        score_QK = cosine_QK / temperature + score_QK
    if not score_QK.isfinite().all():
        raise UserError(f"--rerank {k}: the matching head gives scores that are not finite; its training diverged")
    order_QK = score_QK.sort(dim=1, descending=True, stable=True).indices
    of_ranks = {name: metric for name, metric in metrics.items() if not isinstance(metric, ScoreMetric)}
    return rank_matches(*features, of_ranks, first_QK=position_QK.gather(1, order_QK)).cpu()


@torch.inference_mode()
def match_scores(model: Retriever, matcher: Matcher, split: EvaluationSplit, position_QK: Tensor) -> Tensor:
    """Matching scores (Q, K) of every query with the gallery images at ``position_QK``.

    Caption tokens are kept, as many as fit :data:`TOKEN_BYTES`; image tokens are made batch by batch and dropped.
    """
    was_training = model.training
    model.eval()
    score_QK = torch.full(position_QK.shape, torch.nan, device=position_QK.device)
    with tqdm(desc=f"{split.name} pairs", total=position_QK.numel(), leave=False, disable=hide_bar()) as bar:
        for row_C, text_CLD in _caption_chunks(model, split):
            position_CK = position_QK[row_C]
            start = 0
            for pixels in split.image_batches():
                here_CK = (position_CK >= start) & (position_CK < start + len(pixels))
                text_P, place_P = here_CK.nonzero(as_tuple=True)
                if len(text_P):
                    image_BMD = model.encode_image(pixels).tokens
                    image_P = position_CK[text_P, place_P] - start
                    with model.precision():
                        score_P = _score_pairs(matcher, (text_CLD, text_P), (image_BMD, image_P), bar)
                    score_QK[row_C[text_P], place_P] = score_P
                start += len(pixels)
    model.train(was_training)
    return score_QK


def _caption_chunks(model: Retriever, split: EvaluationSplit) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions (C,) among the queries and tokens (C, L, D) of as many captions as may be held at once."""
    device = model.precision.device
    room = TOKEN_BYTES[device.type == "cpu"]
    rows, tokens, held = [], [], 0
    for row_B, ids_BL, length_B in split.text_batches():
        text_BLD = model.encode_text(ids_BL, length_B).tokens
        if held and held + text_BLD.nbytes > room:
            yield torch.cat(rows), torch.cat(tokens)
            rows, tokens, held = [], [], 0
        rows.append(row_B.to(device))
        tokens.append(text_BLD)
        held += text_BLD.nbytes
    yield torch.cat(rows), torch.cat(tokens)


def _score_pairs(matcher: Matcher, texts: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor], bar: tqdm) -> Tensor:
    """Scores (P,) of pairs; ``texts`` and ``images`` are the tokens of a block each and where in it a pair's are."""
    size = PAIRS_AT_ONCE[images[0].device.type == "cpu"]
    scores = []
    for text_P, image_P in zip(texts[1].split(size), images[1].split(size), strict=True):
        scores.append(matcher(texts[0][text_P], images[0][image_P]).float())
        bar.update(len(text_P))
    return torch.cat(scores)
