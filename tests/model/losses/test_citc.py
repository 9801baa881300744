"""C-ITC against nested loops."""

import pytest
import torch.nn.functional as F

from model.losses.citc import citc_loss
from tests.helpers.naive import drawn


def test_citc_equals_the_loops():
    image, text = F.normalize(drawn(5, 3), dim=1), F.normalize(drawn(5, 3, seed=1), dim=1)
    within = across = 0.0
    for i in range(5):
        for j in range(5):
            within += float((image[i] @ image[j] - text[i] @ text[j]) ** 2) / 25
            across += float((image[i] @ text[j] - image[j] @ text[i]) ** 2) / 25
    assert citc_loss(7 * image, text, 0.25, 0.5).item() == pytest.approx(0.25 * within + 0.5 * across, rel=1e-5)
