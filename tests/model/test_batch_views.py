"""A batch as the heads see it: every field encoded once, whoever asks."""

import pytest
import torch
from torch import Tensor

from model.backbones.spec import Backbone, Encoded
from model.batch_views import BatchViews
from model.retriever import Retriever


class Counting(Backbone):
    """Pools a caption's last token, and notes what it is asked to encode."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def encode_image(self, images_BD: Tensor) -> Encoded:
        self.calls.append("image")
        return Encoded(images_BD[:, None], images_BD, torch.ones(1, 2, 3))

    def encode_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Encoded:
        self.calls.append("text")
        tokens_BLD = ids_BL[..., None].float()
        return Encoded(tokens_BLD, tokens_BLD[torch.arange(len(ids_BL)), lengths_B - 1], torch.full((1, 2, 3), 2.0))


@pytest.fixture
def views() -> BatchViews:
    ids, lengths = torch.tensor([[5, 0, 7, 0], [5, 6, 0, 7], [5, 7, 0, 0]]), torch.tensor([3, 4, 2])
    batch = {"images": torch.randn(3, 2), "caption_ids": ids, "caption_ids_lengths": lengths}
    batch |= {"mlm_ids": ids, "mlm_ids_lengths": lengths, "caption_ids_aug": ids + 1}
    batch |= {"caption_ids_aug_lengths": torch.tensor([1, 1, 1]), "pids": torch.tensor([4, 4, 2])}
    return BatchViews(batch, Retriever(Counting()), epoch=3, epoch_share=0.5)


def test_each_field_is_encoded_once_and_only_when_asked_for(views: BatchViews):
    calls = views._model.backbone.calls
    assert calls == []
    assert views.image() is views.image("images")
    assert views.text() is views.text()
    assert calls == ["image", "text"]
    assert views.text("mlm_ids") is views.text("caption_ids"), "one tensor under two names"
    assert views.text("caption_ids_aug") is not views.text()
    assert calls == ["image", "text", "text"]
    assert [routing.unique().tolist() for routing in views.routing] == [[1.0], [2.0], [2.0]]


def test_captions_go_with_their_own_lengths(views: BatchViews):
    assert views.text().pooled.flatten().tolist() == [7, 7, 7]
    assert views.text("caption_ids_aug").pooled.flatten().tolist() == [6, 6, 6]


def test_fields_and_place(views: BatchViews):
    assert views.pids.tolist() == views["pids"].tolist() == views.share("pids").tolist() == [4, 4, 2]
    assert (views.epoch, views.epoch_share, views.rows) == (3, 0.5, slice(None))
    with pytest.raises(KeyError, match="absent"):
        views["absent"]


def test_means_are_of_sums_and_0_without_any(views: BatchViews):
    assert views.mean(torch.tensor([6.0, 3.0]), 3).tolist() == [2.0, 1.0]
    assert views.mean(torch.zeros(2), 0).tolist() == [0.0, 0.0]
