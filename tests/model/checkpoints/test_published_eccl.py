"""Published ECCL run directories: names, and a LoRA that must not be added twice."""

import pytest
import torch
import torch.nn.functional as F

from model.adapters.lora import LoRAOptions, merged
from model.backbones.spec import BackboneOptions
from model.build import model_groups
from model.checkpoints.published import our_names
from model.checkpoints.published_eccl import is_eccl
from model.checkpoints.restore_encoder import restore_encoder
from processor.run_dir.published_flags import PUBLISHED_WITHOUT_EFFECT
from tests.helpers.golden import systems
from utils.command import parse

CASES = [pytest.param(case, id=case.folder.name) for case in systems("eccl")]


def saved_by_the_published_program(state: dict) -> dict:
    """Its best.pth: LoRA is added to the weights, and still there."""
    state = dict(state)
    for key, low in list(state.items()):
        if ".lora_A" not in key:
            continue
        high = state[key.replace("lora_A", "lora_B")]
        layer, _, part = key.rpartition(".lora_A")
        if part in ("_q", "_k", "_v"):
            name, slot = f"{layer}.in_proj_weight", "qkv".index(part[1])
        else:
            name, slot = f"{layer}.out_proj.weight" if part == "_o" else f"{layer}.weight", 0
        weight = state[name].clone()
        rows = slice(slot * len(high), (slot + 1) * len(high))
        weight[rows] += high @ low
        state[name] = weight
    return {f"module.{key}": value for key, value in state.items()}


@pytest.mark.parametrize("case", CASES)
def test_a_published_run_gives_its_features(case):
    state, unknown = our_names(saved_by_the_published_program(case.part("model")))
    assert not unknown and not any("lora_" in key for key in state)
    flags = parse(
        model_groups(),
        ["--config_file", str(case.folder / "configs.yaml")],
        "",
        PUBLISHED_WITHOUT_EFFECT,
        lenient=True,
    )
    backbone = flags.get(BackboneOptions)
    model, unused = restore_encoder(state, backbone, "best.pth", flags.get(LoRAOptions))
    assert not unused
    model.eval()
    with torch.no_grad():
        image = model.encode_image(case.batch()["images"]).pooled
        text = model.encode_text(case.batch()["caption_ids"]).pooled
    for ours, name in ((image, "image_features"), (text, "text_features")):
        recorded = F.normalize(case.tensors[f"out/{name}"], dim=-1)
        torch.testing.assert_close(F.normalize(ours, dim=-1), recorded, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_our_merging_equals_the_published(case):
    ours, _ = our_names(case.part("model"), lora_is_merged=False)
    alpha = case.options.get(LoRAOptions).alpha(4)
    rank = ours["clip.text.transformer.resblocks.0.attn.out_proj.lora_A"].shape[0]
    if alpha != rank:
        pytest.skip("the helper above adds LoRA with scale 1")
    theirs, _ = our_names(saved_by_the_published_program(case.part("model")))
    for key, value in merged(ours, alpha).items():
        torch.testing.assert_close(value, theirs[key], msg=key)


def test_iclf_is_not_taken_for_eccl():
    assert not is_eccl({"base_model.visual.proj": 0, "text_encoder.embeddings.weight": 0})
    assert not is_eccl({"module.base_model.visual.proj": 0, "module.text_encoder.x": 0, "image_encoder.x": 0})
