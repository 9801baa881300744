"""What memory_soft adds to a training step at the size of CUHK-PEDES: ``python -m benchmarks.memory_soft``.

The step beside it is the cheapest one that there is with ViT-B/16 at 384x128: forward and backward of one view of each
pair with itc alone, no optimiser (DGCMIA's own step encodes two views). On a CPU the step is taken with fewer pairs and
its time multiplied, because the towers' work is proportional to the pairs; memory_soft always runs at full size.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import ClassVar

import torch
from prettytable import PrettyTable
from torch import Tensor

from benchmarks.models import random_model, read_flags
from model.backbones.spec import Encoded
from model.batch_views import BatchViews
from model.losses.base import Sizes
from model.losses.memory_soft import MemorySoft, MemorySoftOptions
from utils.device import DeviceOptions, Precision, pick_precision

PAIRS, BATCH, DIM = 68126, 64, 512
CPU_STEP_BATCH = 4


def seconds(work: Callable[[], None], device: torch.device, rounds: int) -> float:
    """Median time of a piece of work, after one round that does not count.

    On a CPU this is processor time, over all threads: wall time would measure the other programs on the machine too.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    times = []
    for _ in range(rounds + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - start)
    return statistics.median(times[1:])


class Encodes:
    """In place of the model: what it is given is the pooled features."""

    parts: ClassVar[dict] = {}

    def encode_image(self, image_BD: Tensor) -> Encoded:
        return Encoded(image_BD[:, None], image_BD, image_BD.new_zeros(()))

    def encode_text(self, text_BD: Tensor, _: Tensor) -> Encoded:
        return self.encode_image(text_BD)


def memory_soft_times(device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of the loss with its backward pass down to the features, and of the bank update."""
    head = MemorySoft(MemorySoftOptions(), Sizes(DIM, 0, 0, PAIRS, 0)).to(device)
    head.image_bank.normal_()
    head.text_bank.normal_()
    index_B = torch.randint(PAIRS, (BATCH,), device=device)
    image_BD, text_BD = (torch.randn(BATCH, DIM, device=device, requires_grad=True) for _ in range(2))
    batch = {"images": image_BD, "caption_ids": text_BD, "caption_ids_lengths": index_B, "index": index_B}
    views = BatchViews(batch, Encodes(), epoch=2)
    return {
        "loss and its gradient": seconds(lambda: head(views).loss.backward(), device, rounds),
        "bank update": seconds(lambda: head.after_step(views), device, rounds),
    }


def step_time(precision: Precision, batch_size: int, rounds: int) -> float:
    """Seconds of forward and backward of ViT-B/16 with itc."""
    model = random_model(read_flags("itc", "random-ViT-B/16", (384, 128)), precision, (0, 0, 0))
    batch = {
        "images": torch.randn(batch_size, 3, 384, 128, device=precision.device),
        "caption_ids": torch.randint(1, 49000, (batch_size, 77), device=precision.device),
        "caption_ids_lengths": torch.full((batch_size,), 77, device=precision.device),
    }

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(batch)[0].loss.backward()

    return seconds(step, precision.device, rounds)


def main() -> None:
    """Print a table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="rounds that count [2]")
    given = parser.parse_args()
    precision = pick_precision(DeviceOptions(device=given.device))
    device = precision.device
    measured = CPU_STEP_BATCH if device.type == "cpu" else BATCH
    parts = memory_soft_times(device, given.rounds)
    step = step_time(precision, measured, given.rounds) * BATCH / measured
    title = f"ViT-B/16 step, {precision.name}" + (f" ({measured} pairs x {BATCH // measured})" * (measured != BATCH))
    unit = "ms" if device.type == "cuda" else "ms of processor time"
    table = PrettyTable([f"{device}, batch {BATCH}, {PAIRS} pairs", unit, "% of a step"])
    for name, value in {**parts, "memory_soft": sum(parts.values()), title: step}.items():
        table.add_row([name, f"{1000 * value:.1f}", f"{100 * value / step:.2f}"])
    table.align = "r"
    print(table)
    print(f"ratio memory_soft_to_step {sum(parts.values()) / step:.4f}")


if __name__ == "__main__":
    main()
