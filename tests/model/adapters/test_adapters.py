"""LoRA and prompts on small random towers: what is trained, merging, recomputation, every loss."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datasets.captions import AugmentOptions, mask_tokens, words_in
from model.adapters import FreezeOptions, add_adapters
from model.adapters.lora import LoRAOptions
from model.adapters.prompts import PromptOptions
from model.backbones.clip import CLIP
from model.backbones.clip_tokenizer import shared_tokenizer
from model.backbones.sizes import ClipSizes
from model.backbones.spec import BackboneOptions
from model.backbones.weights import at_resolution
from model.build import build_retriever
from model.checkpoints.restore import restore_encoder
from model.losses import HEADS
from solver.optimizer import SolverOptions, lr_and_decay
from utils import UserError

SIZES = ClipSizes(32, (32, 32), 16, 16, 64, 3, 32, 2, 49408, 77)
BACKBONE = BackboneOptions(img_size=(48, 32))


def build(loss_names="sdm", **flags):
    torch.manual_seed(0)

    def get(options):
        known = {field.name for field in dataclasses.fields(options)}
        given = {"loss_names": loss_names, **flags}
        return options(**{name: value for name, value in given.items() if name in known})

    model = build_retriever(CLIP(at_resolution(SIZES, BACKBONE)), get, ids=3, images=6, pairs=8)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def batch():
    rng = np.random.default_rng(0)
    ids, lengths = torch.zeros(4, 20, dtype=torch.int64), torch.tensor([5, 20, 9, 14])
    for row, length in enumerate(lengths.tolist()):
        ids[row, :length] = torch.tensor([49406, *rng.integers(300, 40000, length - 2), 49407])
    ids[2, 3] = 0  # is a word too, as in "!("
    words = [
        words_in(row, length, shared_tokenizer()) for row, length in zip(ids.numpy(), lengths.tolist(), strict=True)
    ]
    rows = zip(ids.numpy(), words, strict=True)
    masked, labels = zip(
        *(mask_tokens(row, word, shared_tokenizer(), rng, AugmentOptions()) for row, word in rows), strict=True
    )
    fields = {
        "images": torch.from_numpy(rng.standard_normal((4, 3, 48, 32), dtype=np.float32)),
        "caption_ids": ids,
        "mlm_ids": torch.from_numpy(np.stack(masked)),
        "mlm_labels": torch.from_numpy(np.stack(labels)),
        "pids": torch.tensor([0, 1, 1, 2]),
        "image_ids": torch.tensor([0, 2, 2, 5]),
        "index": torch.arange(4),
        "mask_draws": torch.from_numpy(rng.random((4, 20), dtype=np.float32)),
        "mask_words": torch.from_numpy(np.stack(words)),
    }
    fields["mask_hidden"] = fields["mlm_ids"]
    views = ("images_aug", "images_mvs", "images_ss1", "images_ss2")
    fields |= {**dict.fromkeys(views, fields["images"].flip(3)), "caption_ids_aug": fields["mlm_ids"]}
    fields |= {f"{name}_lengths": lengths for name in ("caption_ids", "mlm_ids", "caption_ids_aug")}
    return {**fields, "mlm_positions": fields["mlm_labels"].flatten().nonzero().squeeze(1)}


def encode_text(model):
    data = batch()
    return model.encode_text(data["caption_ids"], data["caption_ids_lengths"])


@pytest.mark.parametrize(
    "flags", [{"lora_r": 2}, {"prompt_depth": 2}, {"lora_alpha": 4, "prompt_depth": 2, "num_context": 3}]
)
def test_clip_is_frozen_beside_adapters_and_thawed_on_request(flags):
    def trained(model):
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def adapter(name):
        return "lora_" in name or "prompts" in name

    assert trained(build(**flags)) and all(map(adapter, trained(build(**flags))))
    model = build(**flags, train_backbone=True)
    assert trained(model) == {name for name, _ in model.named_parameters()}
    for name, parameter, role in model.parameter_roles():
        lr, decay = lr_and_decay(name, parameter.dim(), role, SolverOptions(lr=1.0, lora_lr=7.0, bias_lr_factor=2.0))
        if adapter(name):
            assert (lr, decay) == (7.0 if "lora_" in name else 1.0, 4e-5)
        else:
            assert role == "plain"


def test_new_lora_changes_nothing_and_eval_merges_nothing():
    torch.manual_seed(1)
    clip = CLIP(at_resolution(SIZES, BACKBONE))
    before = encode_text(clip).tokens
    add_adapters(clip, LoRAOptions(lora_r=2), PromptOptions(), FreezeOptions())
    torch.testing.assert_close(encode_text(clip).tokens, before)
    weights = {name: value.clone() for name, value in clip.state_dict().items()}
    clip.eval().train()
    assert all(torch.equal(value, weights[name]) for name, value in clip.state_dict().items())


@pytest.mark.parametrize("flags", [{"lora_alpha": 4}, {"prompt_depth": 2}, {"lora_r": 3, "prompt_depth": 1}, {}])
def test_recomputing_changes_no_gradient_and_keeps_less(flags):
    kept, gradients = {}, {}
    for recompute in (False, True):
        model = build("TAL", **flags, recompute=recompute).train()
        storages = {}

        def pack(tensor, seen=storages):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step, _ = model(batch())
        step.loss.backward()
        kept[recompute] = sum(storages.values())
        gradients[recompute] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert kept[True] < kept[False]
    torch.testing.assert_close(gradients[True], gradients[False], rtol=1e-4, atol=1e-6)


def test_prompts_leave_tokens_and_ids_aligned():
    model, data = build(prompt_depth=2), batch()
    text = encode_text(model)
    assert text.tokens.shape[:2] == data["caption_ids"].shape
    end = data["caption_ids"].argmax(dim=1)
    assert torch.equal(text.pooled, text.tokens[torch.arange(4), end])
    image = model.encode_image(data["images"])
    assert image.tokens.shape[1] == 1 + 3 * 2 and torch.equal(image.pooled, image.tokens[:, 0])
    padded = F.pad(data["caption_ids"], (0, 57))
    torch.testing.assert_close(model.encode_text(padded, data["caption_ids_lengths"]).pooled, text.pooled)


def test_prompts_are_replaced_by_their_own_in_each_of_the_first_blocks():
    model = build(prompt_depth=2).train()
    text = model.clip.text
    seen = []
    for block in text.transformer.resblocks:
        block.register_forward_pre_hook(lambda module, args: seen.append(args[0][:, 1:5]))
    encode_text(model)
    first, second = model.clip.prompts.text()
    torch.testing.assert_close(seen[0], (first + text.positional_embedding[1:5]).expand(4, -1, -1))
    torch.testing.assert_close(seen[1], second.expand(4, -1, -1))


@pytest.mark.parametrize("flags", [{"lora_r": 2}, {"prompt_depth": 2}, {"lora_r": 2, "prompt_depth": 2}])
def test_adapters_work_with_every_loss(flags):
    for name in HEADS:
        model = build(name, **flags).train()
        step, views = model(batch())
        step.loss.backward()
        model.after_step(views)
        assert torch.isfinite(step.loss), name
        reached = model.clip.visual if name == "ss" else model.clip
        assert all(p.grad is not None for p in reached.parameters() if p.requires_grad), name


@pytest.mark.parametrize("flags", [{"lora_r": 2, "lora_alpha": 5.0}, {"lora_alpha": 8, "prompt_depth": 2}])
def test_a_checkpoint_gives_the_same_features_and_so_does_its_merged_export(flags):
    model, data = build("memory", **flags).eval(), batch()
    lora = LoRAOptions(**{key: value for key, value in flags.items() if "lora" in key})
    restored, unused = restore_encoder(model.state_dict(), BACKBONE, "file", lora)
    assert unused == ["heads.memory.bank.image", "heads.memory.bank.text"]
    assert not any("lora_" in key for key in restored.state_dict())
    again, _ = restore_encoder(restored.state_dict(), BACKBONE, "file", LoRAOptions())
    with torch.no_grad():
        for encode in (lambda m: m.encode_image(data["images"]), encode_text):
            features = [encode(m.eval()).pooled for m in (model, restored, again)]
            torch.testing.assert_close(features[1], features[0], atol=1e-5, rtol=1e-4)
            assert torch.equal(features[1], features[2])


def test_more_prompted_blocks_than_there_are():
    with pytest.raises(UserError, match="--prompt_depth 3: the towers have only 2"):
        build(prompt_depth=3)


def test_frozen_towers_train_what_is_added_to_them():
    model = build("sdm+itm", freeze_towers=True, select_ratio=0.3)
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"token_selection", "heads", "parts"}
    model(batch())[0].loss.backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name.startswith("parts"))
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert any(
        parameter.requires_grad for parameter in build("sdm", freeze_towers=True, lora_r=2).backbone.parameters()
    )
    with pytest.raises(UserError, match="--freeze_towers: cannot be combined with --train_backbone"):
        build("sdm", freeze_towers=True, train_backbone=True)
