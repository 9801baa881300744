"""From flags to heads and parts."""

import pytest
import torch

import train
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.build import LossOptions, build_retriever
from model.losses import HEADS
from utils import UserError


def test_names_are_split_and_checked():
    assert LossOptions(loss_names="mlm+ itc").names == ("mlm", "itc")
    with pytest.raises(UserError, match="no loss is called 'sdn'; did you mean sdm"):
        LossOptions(loss_names="itc+sdn")
    with pytest.raises(UserError, match="itc is there twice"):
        LossOptions(loss_names="itc+sdm+itc")
    with pytest.raises(UserError, match="no loss is called ''; choose from itc, sdm"):
        LossOptions(loss_names="itc+")


@pytest.mark.parametrize("name", HEADS)
def test_every_loss_is_built_with_what_it_needs_and_nothing_else(name: str):
    options = train.read_flags(["--pretrain_choice", "tiny", "--img_size", "32", "32", "--loss_names", name])
    model = build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=5, images=6, pairs=8)
    head = model.heads[name]
    assert isinstance(head, HEADS[name])
    assert set(model.parts) == set(head.parts)
    assert model.needed_fields == head.needs and model.padded_fields == head.padded
    assert (model.parsing is None) == ("parsing" not in head.adapters)
    assert model.precision.dtype == torch.float32
