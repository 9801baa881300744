"""Memory of one training step of ViT-B/16 at 384x128: ECCL beside full fine-tuning.

``python -m tests.benchmarks.eccl_memory [--batch 128] [--bf16]``. Nothing is computed: the step runs on fake tensors,
and every storage that it makes is counted from birth to death, so the peak includes what is recomputed in the backward
pass. FLOPs are counted in the same run.
"""

import argparse
import dataclasses
import weakref
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import model.build as models
from model.clip import CLIP
from model.weights import VIT_B_16, BackboneOptions, at_resolution
from solver.build import SolverOptions, build_optimizer

CASES = {
    "full fine-tuning, sdm": ("sdm", {}),
    "full fine-tuning, sdm, --recompute": ("sdm", {"recompute": True}),
    "ECCL": ("TAL+memory+instance_memory", {"lora_alpha": 4.0, "prompt_depth": 12}),
    "ECCL, --no_recompute": (
        "TAL+memory+instance_memory",
        {"lora_alpha": 4.0, "prompt_depth": 12, "recompute": False},
    ),
}
CUHK = models.TrainCounts(11003, 68126, 34054)
TEXT_LENGTH = 73


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations made and that are still there, with their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and (storage := leaf.untyped_storage()) not in self._seen:
                self._seen.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, partial(self._died, storage.nbytes()))
        return out

    def _died(self, size: int) -> None:
        self.now -= size


def options(options_type: type, flags: dict[str, object]) -> object:
    """An options dataclass with some of these flags."""
    known = {field.name for field in dataclasses.fields(options_type)}
    return options_type(**{name: value for name, value in flags.items() if name in known})


def measure(losses: str, flags: dict[str, object], batch_size: int, dtype: torch.dtype) -> dict[str, float]:
    """GB of everything that one step holds, and its FLOPs in 10^12."""
    with FakeTensorMode(), LiveBytes() as live, FlopCounterMode(display=False) as flops:
        clip = CLIP(at_resolution(VIT_B_16, BackboneOptions()))
        model = models.build_retriever(clip, losses, lambda kind: options(kind, flags), CUHK).train()
        optimizer = build_optimizer(model.parameter_roles(), SolverOptions())
        batch = {
            "images": torch.empty(batch_size, 3, 384, 128),
            "caption_ids": torch.zeros(batch_size, TEXT_LENGTH, dtype=torch.int64),
            **{name: torch.zeros(batch_size, dtype=torch.int64) for name in ("pids", "image_ids", "index")},
        }
        start = live.now
        step, _ = model(batch, precision=partial(torch.autocast, "cpu", dtype, enabled=dtype != torch.float32))
        kept = live.now - start
        step.loss.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        gradients = sum(p.numel() * 4 for p in trained)
        step_peak = live.peak
        total_flops = flops.get_total_flops()
        del optimizer
    weights = sum(p.numel() * 4 for p in model.parameters()) + sum(b.numel() * 4 for b in model.buffers())
    optimiser = 2 * gradients
    return {
        "weights and banks": weights / 1e9,
        "kept for backward": kept / 1e9,
        "gradients": gradients / 1e9,
        "Adam": optimiser / 1e9,
        "peak": (step_peak + optimiser) / 1e9,
        "TFLOP": total_flops / 1e12,
    }


def main() -> None:
    """Print a row per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--bf16", action="store_true")
    flags = parser.parse_args()
    for name, (losses, changes) in CASES.items():
        row = measure(losses, changes, flags.batch, torch.bfloat16 if flags.bf16 else torch.float32)
        print(f"{name:36}", ", ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
