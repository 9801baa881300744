"""LoRA's maths, where it lands, and which flags turn it on."""

import loralib
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import train
from model.adapters.lora import LoRALinear, LoRAOptions, add_lora, merged
from model.adapters.prompts import PromptOptions
from model.backbones import load_backbone
from model.backbones.clip import CLIP, RANDOM
from model.backbones.spec import BackboneOptions
from model.build import build_retriever


@pytest.mark.parametrize("parts", [1, 3])
def test_a_layer_is_the_weight_plus_scaled_product_of_its_own_factors(parts):
    layer = LoRALinear(nn.Linear(16, 8 * parts), 2, 6.0, parts)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(3, 5, 16)
    low = [x @ a.T @ b.T for a, b in zip(layer.lora_A.chunk(parts), layer.lora_B.chunk(parts), strict=True)]
    expected = F.linear(x, layer.weight, layer.bias) + 3.0 * torch.cat(low, dim=-1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(loralib.MergedLinear.forward(layer, x), expected)
    if parts == 1:
        torch.testing.assert_close(loralib.Linear.forward(layer, x), expected)
    state = merged({f"l.{key}": value for key, value in layer.state_dict().items()}, alpha=6.0)
    assert set(state) == {"l.weight", "l.bias"}
    torch.testing.assert_close(F.linear(x, state["l.weight"], state["l.bias"]), expected)


def test_which_flags_turn_lora_on():
    assert LoRAOptions().rank == LoRAOptions(lora_r=0, lora_alpha=4).rank == 0
    assert LoRAOptions(lora_alpha=8).rank == 4 and LoRAOptions(lora_alpha=8).alpha(4) == 8
    assert LoRAOptions(lora_r=2).rank == LoRAOptions(lora_r=2).alpha(2) == 2
    assert PromptOptions().depth == 0 and PromptOptions(prompt_depth=2).depth == 2


def test_every_linear_layer_of_every_block_of_both_towers_gets_one():
    clip = CLIP(RANDOM["small"])
    linears = {name for name, layer in clip.named_modules() if ".resblocks." in name and isinstance(layer, nn.Linear)}
    assert len(linears) == 4 * (4 + 2)  # q, k and v together, what joins the heads, and two of the perceptron
    weights = {name: clip.get_submodule(name).weight for name in linears}
    add_lora(clip, 2, 4.0)
    for name in linears:
        layer = clip.get_submodule(name)
        assert layer.parts == (3 if name.endswith("in_proj") else 1), name
        assert layer.weight is weights[name], name
    adapted = {name.rpartition(".")[0] for name, _ in clip.named_parameters() if name.endswith("lora_A")}
    assert adapted == linears


def test_it_lands_on_any_block_of_linear_layers():
    """A backbone of another kind need not call its layers as CLIP does."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 8)
            self.feed = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.ModuleDict({"out": nn.Linear(16, 8)}))

    class Blocks:
        def __init__(self) -> None:
            self.all = [Gated(), Gated()]

        def blocks(self) -> list[Gated]:
            return self.all

    backbone = Blocks()
    add_lora(backbone, 3, 3.0)
    for block in backbone.blocks():
        layers = block.gate, block.feed[0], block.feed[2]["out"]
        assert all(type(layer) is LoRALinear and layer.lora_A.shape[0] == 3 for layer in layers)


def test_parts_that_heads_share_get_none():
    argv = ["--pretrain_choice", "tiny", "--img_size", "32", "32", "--loss_names", "itc+mlm", "--lora_r", "2"]
    options = train.read_flags(argv)
    model = build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=5, images=6, pairs=8)
    adapted = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert len(adapted) == 2 * 4 * (2 + 2) and all(name.startswith("clip.") for name in adapted)
