"""Key names of published checkpoints, in every wrapping."""

import logging
from re import sub

import pytest
import torch

from model.backbones.clip import CLIP, RANDOM
from model.checkpoints.published import our_names
from tests.helpers.golden import cases


def test_names_in_every_wrapping():
    names = CLIP(RANDOM["tiny"]).state_dict().keys()
    published = [sub(r"\.in_proj\.", ".in_proj_", key.removeprefix("text.")) for key in names]
    for prefix in ("base_model.", "module.base_model.", "model.base_model.", "module.", ""):
        keys = [*published, "input_resolution", "logit_scale"]
        ours, unknown = our_names({prefix + key: torch.zeros(1) for key in keys})
        assert set(ours) == {f"clip.{key}" for key in names}, prefix
        assert all(key.endswith("input_resolution") for key in unknown)
    again, unknown = our_names({f"module.{key}": value for key, value in ours.items()})
    assert set(again) == set(ours) and not unknown


def test_golden_weights_have_a_name_of_ours(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("descry"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        for case in cases("irra"):
            case.retriever()
    assert not caplog.records
