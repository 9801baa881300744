"""From flags to heads and parts."""

from pathlib import Path

import pytest
import torch
from torch import nn

import train
from datasets.augmentation import IMAGE_FIELDS
from model.adapters.lora import LoRALinear
from model.backbones import load_backbone
from model.backbones.architecture import read_architecture
from model.backbones.clip import CLIP
from model.backbones.file_tokenizer import FileTokenizer
from model.backbones.siglip import SigLIP
from model.backbones.sizes import ClipSizes
from model.backbones.spec import Backbone, BackboneOptions
from model.build import LossOptions, build_retriever
from model.losses import HEADS
from model.losses.base import PairFeatures, TrainingPass
from tests.helpers.tokenizer import VOCABULARY, write_tokenizer
from utils import UserError

BACKBONES = {"tiny": "clip", "ViT-H-14": "clip", "ViT-B-16-SigLIP2": "siglip"}
"""a model of each kind: OpenAI's, open_clip's with other heads and activation, and a text tower that is not causal"""


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


@pytest.fixture(params=BACKBONES)
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    """Towers of one or two narrow layers."""
    torch.manual_seed(0)
    if request.param == "tiny":
        return load_backbone(BackboneOptions("tiny", (32, 32)))
    architecture = read_architecture(request.param)
    heads = architecture.image.heads
    sizes = ClipSizes(8 * heads, (32, 32), 16, 16, 8 * heads, 1, 4 * architecture.text.heads, 1, VOCABULARY, 16)
    tokenizer = FileTokenizer(write_tokenizer(tmp_path / "tokenizer.json"), canonical=True)
    return {"clip": CLIP, "siglip": SigLIP}[architecture.family](sizes, architecture, tokenizer)


def batch_for(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Every field that a loss reads, of six pairs of three people."""
    tokenizer, length = backbone.tokenizer, min(backbone.spec.context_length, 16)
    ids, lengths = tokenizer(["a man in a red coat", "a woman wears blue jeans", "the person with a bag"] * 2, length)
    masked, labels = ids.clone(), torch.zeros_like(ids)
    masked[:, 2], labels[:, 2] = tokenizer.mask_id, ids[:, 2]
    texts = {"caption_ids": ids, "caption_ids_aug": masked.clone(), "mlm_ids": masked}
    return {
        **texts,
        **{f"{name}_lengths": lengths.clone() for name in texts},
        **{name: torch.randn(6, 3, 32, 32) for name in IMAGE_FIELDS},
        "mlm_labels": labels,
        "mlm_positions": labels.flatten().nonzero().squeeze(1),
        "pids": torch.tensor([0, 1, 2, 0, 1, 2]),
        "image_ids": torch.arange(6),
        "index": torch.arange(6),
        "mask_draws": torch.rand(ids.shape),
        "mask_hidden": masked.clone(),
        "mask_words": torch.from_numpy(tokenizer.is_word_V)[ids],
    }


@pytest.mark.parametrize("losses", [*HEADS, "itc+id"])
def test_every_loss_trains_every_backbone(backbone: Backbone, losses: str):
    """The last of the rows trains LoRA alone."""
    flags = ["--loss_names", losses, "--cmt_depth", "1", "--moe_layers", "1", "--cnum", "2", "--id_threshod", "-1"]
    lora = ["--lora_r", "2"] if losses == "itc+id" else []
    model = build_retriever(backbone, train.read_flags([*flags, *lora]).get, ids=3, images=6, pairs=6).train()
    features = backbone.spec.embed_dim
    pairs = PairFeatures(*torch.randn(2, 6, features), torch.arange(6) % 3, torch.arange(6))
    model.before_epoch(TrainingPass(1, lambda: pairs))
    step, views = model(batch_for(backbone), epoch=2)
    step.loss.backward()
    model.after_step(views)
    assert step.loss.isfinite()
    if lora:
        linears = [module for block in backbone.blocks() for module in block.modules() if isinstance(module, nn.Linear)]
        assert linears and all(isinstance(layer, LoRALinear) for layer in linears)
        assert all(layer.weight.grad is None for layer in linears)
    trained = [backbone.visual] if losses == "ss" else [backbone.visual, backbone.text]
    for tower in trained:
        reached = [p.grad.abs().max() for p in tower.parameters() if p.grad is not None]
        assert reached and max(reached) > 0, "the loss reaches neither weights nor adapters"


def test_prompts_need_a_causal_text_tower(backbone: Backbone):
    get = train.read_flags(["--loss_names", "itc", "--prompt_depth", "1", "--num_context", "2"]).get
    if not backbone.spec.text_is_causal:
        with pytest.raises(UserError, match="--prompt_depth 1: this backbone takes no prompts"):
            build_retriever(backbone, get, ids=3, images=6, pairs=6)
        return
    model = build_retriever(backbone, get, ids=3, images=6, pairs=6).train()
    model(batch_for(backbone))[0].loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.prompts.parameters())
