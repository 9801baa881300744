"""Compiling, checkpointing and encoding in parts change how a step is computed, not what."""

import shutil

import pytest
import torch
from torch import nn

import train
from model.adapters.parsing import ExpertBlock
from model.backbones import load_backbone
from model.backbones.clip import CLIP, RANDOM
from model.backbones.spec import BackboneOptions
from model.backbones.towers import Block
from model.build import build_retriever
from model.memory_saving import MemoryOptions, set_up_blocks
from model.retriever import Retriever
from tests.helpers.golden import Case, params
from utils import UserError

SAVINGS = {
    "accumulate": MemoryOptions(accumulate=3),
    "grad_checkpointing": MemoryOptions(grad_checkpointing=True),
    "both": MemoryOptions(grad_checkpointing=True, accumulate=2),
}


class Kept:
    """Counts the bytes that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __enter__(self) -> "Kept":
        self._hooks.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._hooks.__exit__(*exc)

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def step(model: Retriever, case: Case) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Loss, gradients and kept bytes of a training step."""
    torch.manual_seed(0)
    model.train()
    with Kept() as kept:
        loss = model(case.batch())[0].loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, kept.bytes


def set_up(model: Retriever, options: MemoryOptions) -> Retriever:
    set_up_blocks(model.blocks(), options)
    model.accumulate = options.accumulate
    return model


def assert_same_step(case: Case, model: Retriever) -> tuple[int, int]:
    """Loss and gradients are those of the plain model; returns the bytes kept, plain and here."""
    loss, grads, kept = step(case.retriever(), case)
    again, grads_again, kept_again = step(model, case)
    torch.testing.assert_close(again, loss, rtol=1e-5, atol=1e-6)
    assert grads_again.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grads_again[name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()), msg=name)
    return kept, kept_again


@pytest.mark.parametrize("saving", SAVINGS)
@pytest.mark.parametrize("case", params())
def test_golden_losses_and_gradients_stay(case: Case, saving: str):
    kept, kept_again = assert_same_step(case, set_up(case.retriever(), SAVINGS[saving]))
    assert kept_again < kept


@pytest.mark.parametrize("case", params("irra", "iclf", "php"))
def test_golden_checkpointing_saves_beyond_the_towers(case: Case):
    """The blocks of the cross former, and PHP's, are recomputed too, with the same gradients."""
    options = MemoryOptions(grad_checkpointing=True)
    model = case.retriever()
    beyond = [block for block in model.blocks() if block not in set(model.backbone.blocks())]
    assert beyond
    set_up_blocks(beyond, options)
    kept, kept_beyond = assert_same_step(case, model)
    assert kept_beyond < kept


@pytest.mark.parametrize("losses", ["itc", "sdm+mlm+itm", "itc+aux", "itc+mlm+aux"])
def test_the_flags_reach_every_block(losses: str):
    flags = ["--pretrain_choice", "tiny", "--img_size", "64", "32", "--loss_names", losses]
    options = train.read_flags([*flags, "--accumulate", "4", "--grad_checkpointing"])
    model = build_retriever(load_backbone(options.get(BackboneOptions)), options.get, 2, 2, 2)
    assert model.accumulate == 4
    blocks = [block for block in model.modules() if isinstance(block, Block | ExpertBlock)]
    assert len(blocks) == 4 + 4 * ("mlm" in losses) + 4 * ("aux" in losses)
    assert set(blocks) == set(model.blocks())
    assert all(block.keep_input_only for block in blocks)
    plain = train.read_flags(flags)
    model = build_retriever(load_backbone(plain.get(BackboneOptions)), plain.get, 2, 2, 2)
    assert not any(block.keep_input_only for block in model.blocks())


def test_compile_reaches_every_block(monkeypatch: pytest.MonkeyPatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda block: compiled.append(block))
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/c++")
    flags = ["--pretrain_choice", "tiny", "--img_size", "64", "32", "--loss_names", "itc+mlm+aux", "--compile"]
    options = train.read_flags(flags)
    model = build_retriever(load_backbone(options.get(BackboneOptions)), options.get, 2, 2, 2)
    assert compiled == list(model.blocks())
    assert len(compiled) == 12


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="--compile: needs a C.. compiler"):
        set_up_blocks(CLIP(RANDOM["tiny"]).blocks(), MemoryOptions(compile=True))


@pytest.mark.skipif(shutil.which("g++") is None, reason="--compile needs g++")
def test_compiled_blocks_compute_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # else it starts processes that import torch
    torch.manual_seed(0)
    clip = CLIP(RANDOM["tiny"])
    ids_BL, lengths_B = torch.randint(1, 49000, (3, 9)), torch.tensor([9, 4, 7])
    results = []
    for options in (MemoryOptions(), MemoryOptions(compile=True)):
        set_up_blocks(clip.blocks(), options)
        clip.zero_grad()
        pooled_BD = clip.encode_text(ids_BL, lengths_B).pooled
        pooled_BD.square().sum().backward()
        results.append((pooled_BD.detach(), clip.text.transformer.resblocks[0].attn.in_proj.weight.grad.clone()))
    for compiled, eager in zip(*reversed(results), strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
