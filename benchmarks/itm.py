"""What the itm loss costs: its share of a training step, and its one cross-former call against other forms of it.

All forms are timed in turn in this process, forward and backward, without the optimiser; on a CPU in processor
seconds, so that other programs do not count. ``three calls`` scores
positives, negative images and negative texts one after the other; ``all positions`` is one call in which the last block
works on every text position and not on the first alone.

Shapes: B pairs, L text positions, M image tokens, D embedding.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from prettytable import PrettyTable
from torch import Tensor

from benchmarks.models import NO_BANKS, random_model, read_flags
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID
from model.retriever import Retriever
from utils.device import Precision

LENGTH = 77


def draw_batch(pairs: int, size: tuple[int, ...], device: str) -> dict[str, Tensor]:
    """Random images and captions of 25 tokens, masked in place as published."""
    generator = torch.Generator().manual_seed(0)
    ids_BL = torch.zeros(pairs, LENGTH, dtype=torch.int64)
    ids_BL[:, :25] = torch.randint(1, MASK_ID, (pairs, 25), generator=generator)
    ids_BL[:, 0], ids_BL[:, 24] = START_ID, END_ID
    labels_BL = torch.zeros_like(ids_BL)
    labels_BL[:, 3:24:7] = ids_BL[:, 3:24:7]
    ids_BL[:, 3:24:7] = MASK_ID
    batch = {
        "images": torch.randn(pairs, 3, *size, generator=generator),
        "mlm_ids": ids_BL,
        "mlm_ids_lengths": torch.full((pairs,), 25),
        "mlm_labels": labels_BL,
        "mlm_positions": labels_BL.flatten().nonzero()[:, 0],
        "pids": torch.arange(pairs),
    }
    batch = {name: value.to(device) for name, value in batch.items()}
    return {**batch, "caption_ids": batch["mlm_ids"], "caption_ids_lengths": batch["mlm_ids_lengths"]}


def matching_forms(model: Retriever, pairs: int, image_tokens: int) -> dict[str, Callable[[], Tensor]]:
    """The matching logits of positives and both kinds of negatives, in three forms."""
    cross, head, width = model.parts["cross_former"], model.heads["itm"], model.backbone.spec.embed_dim
    device = model.precision.device
    text_BLD = torch.randn(pairs, LENGTH, width, device=device, requires_grad=True)
    image_BMD = torch.randn(pairs, image_tokens, width, device=device, requires_grad=True)
    other_B = torch.arange(pairs, device=device).roll(1)

    def batched() -> tuple[Tensor, Tensor]:
        return (
            torch.cat([text_BLD, text_BLD, text_BLD[other_B]]),
            torch.cat([image_BMD, image_BMD[other_B], image_BMD]),
        )

    def one() -> Tensor:
        with model.precision():
            return head.match(cross, *batched())

    def three() -> Tensor:
        pairs_of = ((text_BLD, image_BMD), (text_BLD, image_BMD[other_B]), (text_BLD[other_B], image_BMD))
        with model.precision():
            return torch.cat([head.match(cross, text, image) for text, image in pairs_of])

    def every() -> Tensor:
        with model.precision():
            first_PD = cross(*batched())[:, 0].float()
        return head.head(first_PD)

    return {"one call (ours)": one, "three calls": three, "one call, all positions": every}


def compare(forms: dict[str, Callable[[], Tensor]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of forward and backward of each form, called in turn, after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    clock = time.perf_counter if device == "cuda" else time.process_time
    for number in range(rounds + 1):
        for name, form in forms.items():
            start = clock()
            form().float().sum().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                times[name].append(clock() - start)
    return {name: statistics.median(spent) for name, spent in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu", help="cpu or cuda")
    parser.add_argument("--model", default="random-ViT-B/16" if cuda else "small", help="architecture")
    parser.add_argument("--img_size", type=int, nargs=2, default=(384, 128) if cuda else (96, 48))
    parser.add_argument("--pairs", type=int, default=64 if cuda else 32, help="batch size")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each form, the median counts")
    args = parser.parse_args()

    batch = draw_batch(args.pairs, tuple(args.img_size), args.device)
    precision = Precision(torch.device(args.device), torch.bfloat16 if args.device == "cuda" else torch.float32)
    models = {
        losses: random_model(read_flags(losses, args.model, args.img_size), precision, NO_BANKS)
        for losses in ("itc+mlm+itm+id", "itc+mlm+id")
    }
    steps = compare({n: lambda m=m: m(batch)[0].loss for n, m in models.items()}, args.rounds, args.device)
    model = models["itc+mlm+itm+id"]
    rows, columns = model.backbone.sizes.grid
    forms = matching_forms(model, args.pairs, rows * columns + 1)
    calls = compare(forms, args.rounds, args.device)

    print(f"{precision}, {torch.get_num_threads()} threads, {args.model} at {args.img_size}, {args.pairs} pairs")
    table = PrettyTable(["forward and backward of", "seconds"])
    for name, spent in (*((f"a step of {n}", s) for n, s in steps.items()), *calls.items()):
        table.add_row([name, f"{spent:.3f}"])
    print(table)
    whole, without = steps.values()
    print(f"share of itm in a step: {1 - without / whole:.2f}")
    ours, three, every = calls.values()
    for name, ratio in (("step", whole / without), ("batched", three / ours), ("first", every / ours)):
        print(f"ratio itm_{name} {ratio:.2f}")


if __name__ == "__main__":
    main()
