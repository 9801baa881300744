"""Every system on the tensors of a GPU that is not there: a tensor left on the CPU is found without one."""

from contextlib import suppress
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

import train
from model.backbones import BackboneOptions, load_backbone
from model.build import build_retriever
from model.retriever import Retriever
from tests.helpers.ranks import IDS, IMAGES, PAIRS, SYSTEMS, whole_batch
from utils.device import Precision

CUDA = torch.device("cuda")


@pytest.mark.parametrize("system", SYSTEMS)
def test_forward_passes_stay_on_the_gpu(system: str):
    """Forward only: autograd asks the driver for the real device, and so does autocast, hence float32."""
    options = train.read_flags(["--pretrain_choice", "tiny", "--img_size", "32", "32", *SYSTEMS[system]])
    with FakeTensorMode(allow_non_fake_inputs=False), mock.patch.object(Retriever, "to"):  # fakes cannot be moved
        with CUDA:
            backbone = load_backbone(options.get(BackboneOptions))
            precision = Precision(CUDA, torch.float32)
            model = build_retriever(backbone, options.get, IDS, IMAGES, PAIRS, precision).train()
        batch = {name: value.to(CUDA) for name, value in whole_batch(0, 8).items()}
        batch["mlm_positions"] = torch.arange(8, device=CUDA)  # how many are masked depends on values
        for epoch in (1, 2):
            step, views = model(batch, epoch, 0.5)
            with torch.no_grad(), suppress(DynamicOutputShapeException):  # ECCL's number of turns depends on values
                model.after_step(views)
            assert {step.loss.device.type, *(value.device.type for value in step.report.values())} == {"cuda"}
        model.eval()
        encoded = (
            model.encode_text(batch["caption_ids"], batch["caption_ids_lengths"]),
            model.encode_image(batch["images"]),
        )
        assert all(each.feature.device.type == "cuda" for each in encoded)


def test_a_tensor_left_behind_is_found():
    with FakeTensorMode(allow_non_fake_inputs=False), pytest.raises(RuntimeError, match="cuda"):
        torch.ones(2, device=CUDA) + torch.ones(2)
