"""Does the memory of a training process grow? 2,000 steps of a tiny model with every system's losses.

Prints the resident memory after every 250 steps. The first few hundred may add some: shapes of batches that had not
come before. Last come lines ``growth SYSTEM KB_PER_STEP``, over the second half.

    python -m benchmarks.memory_growth
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

from prettytable import PrettyTable

import processor.trainer
import train as train_script
from datasets.mannequins.draw import draw
from tests.helpers.runs import DRAWING, SMALL

SYSTEMS = {
    "IRRA": ["--loss_names", "sdm+mlm+id", "--cmt_depth", "1"],
    "DGCMIA": ["--loss_names", "itc+itc1+cons+memory_soft"],
    "PHP": ["--loss_names", "sdm+itc+aux", "--cnum", "3", "--moe_layers", "1", "--moe_heads", "2"],
    "ECCL": ["--loss_names", "TAL+memory+instance_memory", "--lora_alpha", "4", "--prompt_depth", "2"],
    "ICLF": ["--loss_names", "itc+mlm+itm+id", "--cmt_depth", "1"],
}
EVERY = 250


def resident_bytes() -> int:
    """Memory of this process that is in RAM, as Linux tells it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def watch(flags: list[str], steps: int) -> list[int]:
    """Resident memory after every ``EVERY`` steps of a run."""
    seen: list[int] = []
    done, real = [0], processor.trainer.Trainer.step

    def step(trainer: processor.trainer.Trainer, batch: dict) -> None:
        real(trainer, batch)
        done[0] += 1
        if done[0] % EVERY == 0:
            seen.append(resident_bytes())
        if done[0] == steps:
            raise KeyboardInterrupt

    processor.trainer.Trainer.step = step
    try:
        train_script.main(flags)
    except KeyboardInterrupt:
        pass
    finally:
        processor.trainer.Trainer.step = real
    return seen


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    if not Path("/proc/self/statm").exists():
        sys.exit("reads the memory of the process as Linux tells it")
    table = PrettyTable(["system", *(f"{step} steps" for step in range(EVERY, args.steps + 1, EVERY))])
    growth = {}
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "CUHK-PEDES", DRAWING, "CUHK-PEDES", workers=1)
        for name in args.systems:
            more = ["--precision", args.precision, "--batch_size", "4", "--num_epoch", "100000", "--eval_period", "50"]
            place = ["--root_dir", folder, "--run_dir", f"{folder}/{name}"]
            seen = watch([*SMALL, *SYSTEMS[name], *more, *place, "--log_period", "100000"], args.steps)
            table.add_row([name, *(f"{value / 1e6:.1f} MB" for value in seen)])
            half = len(seen) // 2
            growth[name] = (seen[-1] - seen[half - 1]) / (EVERY * (len(seen) - half)) / 1e3
    print(table)
    for name, value in growth.items():
        print(f"growth {name} {value:.2f} KB per step")


if __name__ == "__main__":
    main()
