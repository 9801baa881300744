"""What the scores of noise-aware masking cost: their share of a training step, beyond the extra pass of the captions.

On a CPU, in processor seconds. ``host`` is what stays on the CPU with a GPU too: reading, writing and writing down what
is overwritten.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from prettytable import PrettyTable
from torch import Tensor

from benchmarks.itm import LENGTH, draw_batch
from benchmarks.models import random_model, read_flags
from model.losses.nam import best_patch, masked, masking_probabilities
from model.token_scores import TokenScores
from utils.device import Precision

CAPTIONS = 1_000_000
"""of the file; a step touches those of its batch only"""


def median_seconds(function: Callable[[], object], rounds: int) -> float:
    """Of processor time, after one call to warm up."""
    times = []
    for _ in range(rounds + 1):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-ViT-B/16")
    parser.add_argument("--pairs", type=int, default=8, help="of a batch")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps, the median counts")
    args = parser.parse_args()

    precision = Precision(torch.device("cpu"), torch.float32)
    model = random_model(read_flags("nam", args.model, (384, 128)), precision, (1, 1, CAPTIONS))
    batch = draw_batch(args.pairs, model.backbone.spec.image_size, "cpu")
    ids_BL = batch["caption_ids"]
    word_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    word_BL[:, 1:24] = True
    generator = np.random.default_rng(0)
    caption_B = generator.choice(CAPTIONS, args.pairs, replace=False)
    batch |= {
        "index": torch.from_numpy(caption_B),
        "mask_draws": torch.rand(ids_BL.shape),
        "mask_hidden": torch.full_like(ids_BL, 49405),
        "mask_words": word_BL,
    }
    patch_BPD, text_BLD = (torch.randn(args.pairs, length, 512) for length in (192, LENGTH))

    with tempfile.TemporaryDirectory() as folder:
        model.open_files(Path(folder), 0)
        store: TokenScores = model.heads["nam"]._scores

        def step() -> None:
            model(batch)[0].loss.backward()

        def extra_pass() -> Tensor:
            with torch.no_grad():
                return model.backbone.early_text(ids_BL, batch["caption_ids_lengths"])

        def host() -> np.ndarray:
            old_BL = store.read(caption_B)
            store.write(caption_B, generator.random((args.pairs, LENGTH), np.float32))
            return old_BL

        def scores() -> None:
            old_BL = torch.from_numpy(host())
            masked(ids_BL, batch["mask_hidden"], batch["mask_draws"], masking_probabilities(old_BL, word_BL), word_BL)
            best_patch(text_BLD, patch_BPD)

        spent = {name: median_seconds(each, args.rounds) for name, each in (("step", step), ("extra pass", extra_pass))}
        spent |= {name: median_seconds(each, 20 * args.rounds) for name, each in (("scores", scores), ("host", host))}
    table = PrettyTable(["part", "ms", "share of the step"], align="r")
    for name, seconds in spent.items():
        table.add_row([name, f"{1e3 * seconds:.2f}", f"{seconds / spent['step']:.2%}"])
    print(f"{args.model}, {args.pairs} pairs")
    print(table)
    print(f"ratio scores {spent['scores'] / spent['step']:.4f}")


if __name__ == "__main__":
    main()
