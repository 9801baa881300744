"""Batches whose features are given."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.backbones.spec import Backbone, Encoded
from model.batch_views import BatchViews
from model.retriever import Retriever


class GivenFeatures(Backbone):
    """Towers that return what they are given."""

    name = "given"

    def encode_image(self, images_BD: Tensor) -> Encoded:
        return Encoded(images_BD[:, None], images_BD, images_BD.new_zeros(()))

    def encode_text(self, ids_BD: Tensor, lengths_B: Tensor) -> Encoded:
        return self.encode_image(ids_BD)


@pytest.fixture
def views_of() -> Callable[..., BatchViews]:
    """A batch as heads see it, from features of images and captions, the epoch, and other fields."""

    def make(image_BD: Tensor, text_BD: Tensor, epoch: int = 1, **fields: list[int]) -> BatchViews:
        others = {name: torch.tensor(values) for name, values in fields.items()}
        lengths = torch.ones(len(text_BD), dtype=torch.int64)
        batch = {"images": image_BD, "caption_ids": text_BD, "caption_ids_lengths": lengths, **others}
        return BatchViews(batch, Retriever(GivenFeatures()), epoch)

    return make
