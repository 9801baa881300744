"""Published ECCL run directories: names, and a LoRA that must not be added twice."""

import pytest
import torch

from model.adapters.lora import LoRAOptions, merged
from model.backbones.spec import BackboneOptions
from model.build import model_options
from model.checkpoints.published import our_names
from model.checkpoints.published.eccl import is_eccl
from model.checkpoints.restore import restore_encoder
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT
from tests.helpers.golden import Case, check_features, params
from utils.command import parse


def saved_by_the_published_program(case: Case) -> dict[str, torch.Tensor]:
    """Its best.pth: LoRA is added to the weights, and still there."""
    state = case.part("model")
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
        weight[rows] += high @ low * (case.options.get(LoRAOptions).alpha(len(low)) / len(low))
        state[name] = weight
    return {f"module.{key}": value for key, value in state.items()}


@pytest.mark.parametrize("case", params("eccl"))
def test_golden_a_published_run_gives_its_features(case: Case):
    state, unknown = our_names(saved_by_the_published_program(case))
    assert not unknown and not any("lora_" in key for key in state)
    flags = parse(
        model_options(),
        ["--config_file", str(case.folder / "configs.yaml")],
        "",
        PUBLISHED_WITHOUT_EFFECT,
        lenient=True,
    )
    backbone = flags.get(BackboneOptions)
    model, unused = restore_encoder(state, backbone, "best.pth", flags.get(LoRAOptions))
    assert not unused
    check_features(case, model)


@pytest.mark.parametrize("case", params("eccl"))
def test_golden_our_merging_equals_the_published(case: Case):
    ours, _ = our_names(case.part("model"), lora_is_merged=False)
    rank = len(ours["clip.text.transformer.resblocks.0.attn.out_proj.lora_A"])
    alpha = case.options.get(LoRAOptions).alpha(rank)
    theirs, _ = our_names(saved_by_the_published_program(case))
    for key, value in merged(ours, alpha).items():
        torch.testing.assert_close(value, theirs[key], msg=key)


def test_iclf_is_not_taken_for_eccl():
    assert not is_eccl({"base_model.visual.proj": 0, "text_encoder.embeddings.weight": 0})
    assert not is_eccl({"module.base_model.visual.proj": 0, "module.text_encoder.x": 0, "image_encoder.x": 0})
