"""SS-I against nested loops."""

import math

import pytest
import torch.nn.functional as F

from model.losses.ss import ss_loss
from tests.helpers.naive import drawn, softmax


def test_ss_equals_the_loops():
    one, other, losses = drawn(4, 6), drawn(4, 6, seed=1), []
    u, v = (F.normalize(view, dim=1) for view in (one, other))
    for a, b in ((u, v), (v, u)):
        for i in range(4):
            found = [a[i] @ b[j] for j in range(4)] + [a[i] @ a[j] for j in range(4) if j != i]
            losses.append(-math.log(softmax([float(cosine) / 0.1 for cosine in found])[i]))
    assert ss_loss(one, other, 0.1).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
