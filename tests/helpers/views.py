"""Batches for losses on pooled features, without a model."""

from types import SimpleNamespace

import torch

from model.backbones.spec import Encoded
from model.batch_views import BatchViews


def views_of(image: torch.Tensor, text: torch.Tensor, epoch: int = 1, **fields: list[int]) -> BatchViews:
    """A batch whose towers return these features."""

    def tower(features: torch.Tensor, *lengths: torch.Tensor) -> Encoded:
        return Encoded(features[:, None], features, features.new_zeros(()))

    model = SimpleNamespace(encode_image=tower, encode_text=tower, parts={})
    batch = {"images": image, "caption_ids": text, "caption_ids_lengths": torch.ones(len(text)).long()}
    return BatchViews(batch | {name: torch.tensor(values) for name, values in fields.items()}, model, epoch)
