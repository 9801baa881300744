"""Compiling, checkpointing and encoding in parts change how a step is computed, not what."""

import shutil

import pytest
import torch

import train
from model.backbones.clip import load_clip
from model.backbones.spec import BackboneOptions
from model.backbones.towers import Block
from model.build import TrainCounts, build_retriever
from model.memory_saving import EngineOptions, set_up_towers
from model.retriever import Retriever
from tests.helpers.golden import Case, params

ENGINES = {
    "accumulate": EngineOptions(accumulate=3),
    "grad_checkpointing": EngineOptions(grad_checkpointing=True),
    "both": EngineOptions(grad_checkpointing=True, accumulate=2),
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


def set_up(model: Retriever, options: EngineOptions) -> Retriever:
    set_up_towers(model.clip, options)
    model.accumulate = options.accumulate
    return model


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", params())
def test_golden_losses_and_gradients_stay(case: Case, engine: str):
    loss, grads, kept = step(case.retriever(), case)
    again, grads_again, kept_again = step(set_up(case.retriever(), ENGINES[engine]), case)
    torch.testing.assert_close(again, loss, rtol=1e-5, atol=1e-6)
    assert grads_again.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grads_again[name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()), msg=name)
    assert kept_again < kept


def test_the_flags_reach_the_model():
    options = train.read_flags(
        ["--pretrain_choice", "tiny", "--img_size", "64", "32", "--accumulate", "4", "--grad_checkpointing"]
    )
    clip = load_clip(options.get(BackboneOptions))
    model = build_retriever(clip, "itc", options.get, TrainCounts(2, 2, 2))
    assert model.accumulate == 4
    assert all(block.keep_input_only for block in model.modules() if isinstance(block, Block))


def test_no_parts_is_refused():
    with pytest.raises(ValueError, match="--accumulate 0"):
        EngineOptions(accumulate=0)


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="--compile: needs a C.. compiler"):
        set_up_towers(load_clip(BackboneOptions("tiny", (64, 32))), EngineOptions(compile=True))


@pytest.mark.skipif(shutil.which("g++") is None, reason="--compile needs g++")
def test_compiled_blocks_compute_the_same():
    torch.manual_seed(0)
    clip = load_clip(BackboneOptions("tiny", (64, 32)))
    ids_BL = torch.randint(1, 49000, (3, 9))
    results = []
    for options in (EngineOptions(), EngineOptions(compile=True)):
        set_up_towers(clip, options)
        clip.zero_grad()
        pooled_BD = clip.encode_text(ids_BL).pooled
        pooled_BD.square().sum().backward()
        results.append((pooled_BD.detach(), clip.text.transformer.resblocks[0].attn.in_proj.weight.grad.clone()))
    for compiled, eager in zip(*reversed(results), strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
