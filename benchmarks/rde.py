"""RDE's training step (forward, backward, no optimiser) and its look at the pairs, against IRRA's step.

    python -m benchmarks.rde [--device cuda] [--model random-ViT-B/16] [--pairs 16]

All forms are timed in turn in this process. Captions have the lengths of ``benchmarks.train_step`` and are cut to the
longest of the batch where the losses allow it. RDE encodes every pair once more per epoch, without gradient
(``judging``), so that its cost per pair is the sum of both.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from prettytable import PrettyTable
from torch import Tensor

from benchmarks.models import random_model, read_flags
from benchmarks.train_step import DTYPES, Step, compare, draw_batch
from model.batch_views import BatchViews
from model.retriever import Retriever
from utils.device import Precision

RDE = ("TAL", "--select_ratio", "0.3")
FORMS = {
    "IRRA (sdm+id+mlm)": ("sdm+id+mlm",),
    "TAL": ("TAL",),
    "RDE, norm frozen": RDE,
    "RDE, norm of the batch": (*RDE, "--tse_norm", "batch"),
}
"""losses and further flags"""


def build(flags: tuple[str, ...], args: argparse.Namespace, precision: Precision) -> Retriever:
    """A system with random weights."""
    losses, *more = flags
    return random_model(read_flags(losses, args.model, args.img_size, *more), precision)


def cut(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with captions cut to the longest."""
    longest = int(batch["caption_ids_lengths"].max())
    ids = batch["caption_ids"][:, :longest].contiguous()
    labels = batch["mlm_labels"][:, :longest].contiguous()
    positions = labels.flatten().nonzero()[:, 0]
    return batch | {"caption_ids": ids, "mlm_ids": ids, "mlm_labels": labels, "mlm_positions": positions}


def step_of(flags: tuple[str, ...], args: argparse.Namespace, batch: dict[str, Tensor], precision: Precision) -> Step:
    """A training step."""
    model = build(flags, args, precision)
    batch = batch if model.reads_padding else cut(batch)

    def step() -> float:
        model.zero_grad(set_to_none=True)
        loss = model(batch)[0].loss
        loss.backward()
        return loss.item()

    return step


def judging(args: argparse.Namespace, batch: dict[str, Tensor], precision: Precision) -> Step:
    """The losses of a batch's pairs, as they are collected before an epoch."""
    model, batch = build(RDE, args, precision).eval(), cut(batch)

    def look() -> float:
        with torch.no_grad():
            return torch.stack(model.heads["TAL"].of_views(BatchViews(batch, model))).sum().item()

    return look


def main() -> None:
    """Print a table, and each ratio on a line of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--precision", default="bf16", choices=list(DTYPES))
    parser.add_argument("--model", default="random-ViT-B/16", help="as --pretrain_choice of train.py")
    parser.add_argument("--img_size", type=int, nargs=2, default=(384, 128))
    parser.add_argument("--pairs", type=int, default=128 if cuda else 16, help="batch size")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each form, the median counts")
    args = parser.parse_args()
    device = torch.device(args.device)
    precision = Precision(device, DTYPES[args.precision])
    batch = draw_batch(args.pairs, tuple(args.img_size), device) | {"index": torch.arange(args.pairs, device=device)}
    forms: dict[str, Callable[[], Step]] = {
        name: partial(step_of, flags, args, batch, precision) for name, flags in FORMS.items()
    }
    forms["judging"] = partial(judging, args, batch, precision)
    results = compare(forms, 2, args.rounds, 10 if cuda else 1, device)
    table = PrettyTable(["form", "seconds"])
    for name, (spent, _) in results.items():
        table.add_row([name, f"{spent:.4f}"])
    print(f"{args.device}, {args.precision}, {args.model} at {tuple(args.img_size)}, {args.pairs} pairs")
    print(table)
    irra, tal = results["IRRA (sdm+id+mlm)"][0], results["TAL"][0]
    for name, (spent, _) in results.items():
        print(f"ratio to IRRA's step, {name}: {spent / irra:.3f}; to TAL's: {spent / tal:.3f}")


if __name__ == "__main__":
    main()
