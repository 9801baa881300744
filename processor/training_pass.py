"""A look at the whole training split before an epoch, for losses and divisions that need one."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.batches.train_loader import TrainLoader
from model.losses.base import PairFeatures, TrainingPass
from model.retriever import Retriever
from processor.evaluator import encode_split
from utils.log import hide_bar

log = logging.getLogger("descry")


def training_pass(model: Retriever, loader: TrainLoader, epoch: int) -> TrainingPass:
    """What heads and the division may ask for before an epoch; nothing is computed until they do."""

    def batches(fields: tuple[str, ...], plain: bool) -> Iterator[dict[str, Tensor]]:
        visited = loader.again(fields, epoch, plain)
        return iter(tqdm(visited, f"epoch {epoch} division", len(visited), leave=False, disable=hide_bar()))

    def encode() -> PairFeatures:
        split = loader.unaugmented()
        features = encode_split(model, split)
        width = model.backbone.spec.embed_dim  # banks hold the pooled embedding, which is the first
        rows = [row for row, record in enumerate(split.records) for _ in record.captions]
        image_N = torch.tensor(rows, device=features.image_GD.device)
        log.info("memory banks filled from %d training pairs", len(rows))
        return PairFeatures(
            features.image_GD[image_N, :width], features.text_QD[:, :width], features.query_pids, image_N
        )

    return TrainingPass(epoch, encode, batches, loader.seed, loader.real)
