"""The learned scale at its bound."""

import math

import pytest

from model.logit_scale import LogitScale, ScaleOptions


@pytest.mark.parametrize("clamp", ["value", "parameter"])
def test_the_scale_stays_at_100(clamp):
    scale = LogitScale(ScaleOptions(scale_clamp=clamp), 4.75)
    value = scale()
    value.backward()
    assert value.item() == pytest.approx(100)
    assert scale.log_scale.grad.item() == pytest.approx(math.exp(4.75), rel=1e-5)  # the way back stays open
    scale.after_step()
    assert scale.log_scale.item() == pytest.approx(4.75 if clamp == "value" else math.log(100))
