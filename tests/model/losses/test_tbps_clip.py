"""The losses of TBPS-CLIP against nested loops."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from model.backbones.spec import Encoded
from model.batch_views import BatchViews
from model.logit_scale import LogitScale, ScaleOptions
from model.losses.base import Sizes
from model.losses.citc import citc_loss
from model.losses.nitc import NITC, NITCOptions, nitc_rows, soft_share
from model.losses.ritc import ritc_rows
from model.losses.ss import ss_loss

PIDS = [[0, 1, 2, 3], [0, 0, 1, 0], [5, 5, 5, 5]]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


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


@pytest.mark.parametrize("pids", PIDS)
def test_ritc_equals_the_loops(pids):
    logits, expected = 3 * drawn(4, 4), []
    for i in range(4):
        same = [float(pids[i] == pids[j]) for j in range(4)]
        predicted = softmax(logits[i].tolist())
        row = [p * (math.log(p) - math.log(s / sum(same) + 0.01)) for p, s in zip(predicted, same, strict=True)]
        expected.append(sum(row) / 2)
    assert ritc_rows(logits, torch.tensor(pids), 0.01).tolist() == pytest.approx(expected, rel=1e-5)


def test_citc_equals_the_loops():
    image, text = F.normalize(drawn(5, 3), dim=1), F.normalize(drawn(5, 3, seed=1), dim=1)
    within = across = 0.0
    for i in range(5):
        for j in range(5):
            within += float((image[i] @ image[j] - text[i] @ text[j]) ** 2) / 25
            across += float((image[i] @ text[j] - image[j] @ text[i]) ** 2) / 25
    assert citc_loss(7 * image, text, 0.25, 0.5).item() == pytest.approx(0.25 * within + 0.5 * across, rel=1e-5)


def test_ss_equals_the_loops():
    one, other, losses = drawn(4, 6), drawn(4, 6, seed=1), []
    u, v = (F.normalize(view, dim=1) for view in (one, other))
    for a, b in ((u, v), (v, u)):
        for i in range(4):
            found = [a[i] @ b[j] for j in range(4)] + [a[i] @ a[j] for j in range(4) if j != i]
            losses.append(-math.log(softmax([float(cosine) / 0.1 for cosine in found])[i]))
    assert ss_loss(one, other, 0.1).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


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


@pytest.mark.parametrize("clamp", ["value", "parameter"])
def test_the_scale_stays_at_100(clamp):
    scale = LogitScale(ScaleOptions(scale_clamp=clamp), 4.75)
    value = scale()
    value.backward()
    assert value.item() == pytest.approx(100)
    assert scale.log_scale.grad.item() == pytest.approx(math.exp(4.75), rel=1e-5)  # the way back stays open
    scale.after_step()
    assert scale.log_scale.item() == pytest.approx(4.75 if clamp == "value" else math.log(100))
