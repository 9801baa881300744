"""N-ITC against nested loops, its soft labels, and what it encodes."""

import math
from types import SimpleNamespace

import pytest
import torch

from model.backbones.spec import Encoded
from model.batch_views import BatchViews
from model.logit_scale import LogitScale, ScaleOptions
from model.losses.base import Sizes
from model.losses.nitc import NITC, NITCOptions, nitc_rows, soft_share
from tests.helpers.naive import drawn, softmax

PIDS = [[0, 1, 2, 3], [0, 0, 1, 0], [5, 5, 5, 5]]


@pytest.mark.parametrize("pids", PIDS)
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_nitc_equals_the_loops(pids, share):
    logits, soft = 3 * drawn(4, 4), 3 * drawn(4, 4, seed=1)
    expected = []
    for i in range(4):
        same = [float(pids[i] == pids[j]) for j in range(4)]
        target = [share * p + (1 - share) * s / sum(same) for p, s in zip(softmax(soft[i].tolist()), same, strict=True)]
        predicted = softmax(logits[i].tolist())
        expected.append(-sum(t * math.log(p) for t, p in zip(target, predicted, strict=True)) / 2)
    assert nitc_rows(logits, torch.tensor(pids), soft, share).tolist() == pytest.approx(expected, rel=1e-5)


def test_soft_labels_rise_within_the_first_epoch():
    shares = [soft_share(0.5, epoch, step / 4) for epoch in (1, 2) for step in range(4)]
    assert shares == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5]


class Towers(SimpleNamespace):
    """A model that counts its passes over the captions; each gives another result if something is dropped."""

    def encode_image(self, images):
        return Encoded(images[:, None], images, torch.zeros(()))

    def encode_text(self, ids, lengths):
        self.passes += 1
        feature = ids + (self.passes if self.drops_text else 0)
        return Encoded(feature[:, None], feature, torch.zeros(()))


def views_of(drops_text: bool, epoch: int = 2, share: float = 0.0) -> BatchViews:
    scale = LogitScale(ScaleOptions(), math.log(20))
    model = Towers(parts={"logit_scale": scale}, division=None, drops_text=drops_text, passes=0)
    batch = {"images": drawn(4, 8), "images_mvs": drawn(4, 8, seed=1), "caption_ids": drawn(4, 8, seed=2)}
    lengths = {"caption_ids_lengths": torch.ones(4).long()}
    return BatchViews(batch | lengths | {"pids": torch.tensor([0, 1, 0, 2])}, model, epoch, share)


@pytest.mark.parametrize(("drops", "share", "passes"), [(False, 0.5, 1), (True, 0.5, 2), (True, 0.0, 1)])
def test_captions_are_encoded_again_only_where_it_makes_a_difference(drops, share, passes):
    views = views_of(drops, epoch=1, share=share)
    loss = NITC(NITCOptions(), Sizes(8, 9, 3, 5, 5))
    first = loss(views).loss
    assert first == loss(views).loss and views._model.passes == passes


def test_the_second_view_counts_half():
    options = NITCOptions(mvs_image=True)
    both = NITC(options, Sizes(8, 9, 3, 5, 5))
    assert both.needs == ("images", "images_mvs", "caption_ids", "pids")
    views, alone = views_of(False), NITC(NITCOptions(), Sizes(8, 9, 3, 5, 5))
    other = views_of(False)
    other._batch["images"] = other._batch["images_mvs"]
    torch.testing.assert_close(both(views).loss, (alone(views).loss + alone(other).loss) / 2)
