"""R-ITC against nested loops."""

import math

import pytest
import torch

from model.losses.ritc import ritc_rows
from tests.helpers.naive import drawn, softmax


@pytest.mark.parametrize("pids", [[0, 1, 2, 3], [0, 0, 1, 0], [5, 5, 5, 5]])
def test_ritc_equals_the_loops(pids):
    logits, expected = 3 * drawn(4, 4), []
    for i in range(4):
        same = [float(pids[i] == pids[j]) for j in range(4)]
        predicted = softmax(logits[i].tolist())
        row = [p * (math.log(p) - math.log(s / sum(same) + 0.01)) for p, s in zip(predicted, same, strict=True)]
        expected.append(sum(row) / 2)
    assert ritc_rows(logits, torch.tensor(pids), 0.01).tolist() == pytest.approx(expected, rel=1e-5)
