"""Memory of one training step of ViT-B/16 at 384x128: what saves how much of it, and what that costs.

``python -m benchmarks.memory [--batch 128] [--bf16] [--only NAME]``. Nothing is computed: fake tensors are used,
and every storage that it makes is counted from birth to death, so the peak includes what is recomputed in the backward
pass. FLOPs are counted in a second step.
"""

import argparse
import weakref
from functools import partial
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import random_model, read_flags
from model.retriever import Retriever
from utils.device import Precision

IRRA = "sdm+id+mlm"
ECCL = "TAL+memory+instance_memory", "--lora_alpha", "4", "--prompt_depth", "12"
CASES = {
    "IRRA": (IRRA,),
    "IRRA, --recompute": (IRRA, "--recompute"),
    "IRRA, --grad_checkpointing": (IRRA, "--grad_checkpointing"),
    "IRRA, --accumulate 8": (IRRA, "--accumulate", "8"),
    "IRRA, --accumulate 8, --grad_checkpointing": (IRRA, "--accumulate", "8", "--grad_checkpointing"),
    "full fine-tuning, sdm": ("sdm",),
    "full fine-tuning, sdm, --recompute": ("sdm", "--recompute"),
    "ECCL": ECCL,
    "ECCL, --no_recompute": (*ECCL, "--no_recompute"),
}
"""name to losses and further flags"""
TEXT_LENGTH = 73
MASKED = 4
"""masked words of a caption"""


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


def measure(flags: tuple[str, ...], batch_size: int, dtype: torch.dtype) -> dict[str, float]:
    """GB of everything that one step holds, and its FLOPs in 10^12."""
    # Fake weights cannot be moved, not even to where they are.
    with FakeTensorMode(), mock.patch.object(Retriever, "to"):
        losses, *more = flags
        options = read_flags(losses, "random-ViT-B/16", (384, 128), *more)
        model = random_model(options, Precision(torch.device("cpu"), dtype))
        batch = draw_batch(batch_size)
        with LiveBytes() as live:
            step, _ = model(batch)
            kept = live.now
            step.loss.backward()
        del step
        model.zero_grad()
        # By itself: the counter holds on to what is recomputed.
        with FlopCounterMode(display=False) as flops:
            model(batch)[0].loss.backward()
    weights = sum(tensor.numel() * 4 for tensor in (*model.parameters(), *model.buffers()))
    gradients = sum(parameter.numel() * 4 for parameter in model.parameters() if parameter.requires_grad)
    return {
        "weights and banks": weights / 1e9,
        "kept for backward": kept / 1e9,
        "gradients": gradients / 1e9,
        "Adam": 2 * gradients / 1e9,
        "peak": (weights + live.peak + 2 * gradients) / 1e9,
        "TFLOP": flops.get_total_flops() / 1e12,
    }


def draw_batch(batch_size: int) -> dict[str, torch.Tensor]:
    """Every field that some system reads, without content."""
    text = torch.zeros(batch_size, TEXT_LENGTH, dtype=torch.int64)
    lengths = torch.full((batch_size,), TEXT_LENGTH)
    return {
        "images": torch.empty(batch_size, 3, 384, 128),
        "caption_ids": text,
        "caption_ids_lengths": lengths,
        "mlm_ids": text,
        "mlm_ids_lengths": lengths,
        "mlm_labels": torch.zeros_like(text),
        "mlm_positions": torch.zeros(MASKED * batch_size, dtype=torch.int64),
        **{name: torch.zeros(batch_size, dtype=torch.int64) for name in ("pids", "image_ids", "index")},
    }


def main() -> None:
    """Print a row per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--only", default="", help="cases whose names begin so")
    args = parser.parse_args()
    for name, flags in ((name, case) for name, case in CASES.items() if name.startswith(args.only)):
        row = measure(flags, args.batch, torch.bfloat16 if args.bf16 else torch.float32)
        print(f"{name:42}", ", ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
