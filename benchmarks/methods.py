"""Train every system at demo size and print one table.

All start from the same towers, as published systems start from CLIP: those of the demo (``bash run.sh`` makes them).
They are then trained on people and a difficulty that the demo has not seen, each with its own losses and adapters and
with everything else equal.

    python -m benchmarks.methods --start logs/Mannequins/TIME_demo/best.pth
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from prettytable import PrettyTable

from processor.metrics import METRICS

ROOT = Path(__file__).parents[1]
SYSTEMS = {
    "itc": ["--loss_names", "itc"],
    "itc+id": ["--loss_names", "itc+id"],
    "IRRA": ["--loss_names", "sdm+id+mlm"],
    "DGCMIA": ["--loss_names", "itc+itc1+cons+memory_soft"],
    "PHP": ["--loss_names", "sdm+itc+aux", "--cnum", "9", "--moe_layers", "2", "--moe_heads", "3"],
    "ECCL": [
        "--loss_names",
        "TAL+memory+instance_memory",
        "--lora_alpha",
        "4",
        "--prompt_depth",
        "2",
        "--lora_lr",
        "2e-3",
    ],
    "ICLF": ["--loss_names", "itc+mlm+itm+id"],
}
"""name to what differs from the common flags"""


def run(script: str, *flags: object) -> str:
    """Run a script of the project and return what it printed; ends the benchmark where it fails."""
    done = subprocess.run([sys.executable, script, *map(str, flags)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def table_row(printed: str) -> list[float]:
    """The numbers of the last t2i row."""
    row = re.findall(r"\| t2i +\|(.*)\|", printed)[-1]
    return [float(cell) for cell in row.split("|")]


def common_flags(args: argparse.Namespace) -> list[str]:
    """What all systems share."""
    drawing = ["--mannequin_difficulty", args.difficulty, "--mannequin_seed", "1"]
    drawing += ["--mannequin_train_ids", str(args.train_ids)]
    training = ["--num_epoch", str(args.epochs), "--lr", "3e-4", "--eval_period", str(args.epochs), "--cmt_depth", "2"]
    flags = ["--config_file", "configs/demo.yaml", "--root_dir", str(args.root_dir), "--finetune", str(args.start)]
    return [*flags, *drawing, *training, "--seed", str(args.seed)]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="best.pth of the demo")
    parser.add_argument("--root_dir", type=Path, default=Path("data/methods"), help="where the people are drawn")
    parser.add_argument("--out", type=Path, default=Path("logs/methods"), help="where the runs go")
    parser.add_argument("--difficulty", default="medium")
    parser.add_argument("--train_ids", type=int, default=1500, help="people to train on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    args = parser.parse_args()
    table = PrettyTable(["system", "losses", "trained", *METRICS, "minutes"])
    table.align = "l"
    for name in args.systems:
        run_dir = args.out / f"{name}-{args.difficulty}-{time.strftime('%Y%m%d_%H%M%S')}"
        started = time.perf_counter()
        printed = run("train.py", *common_flags(args), *SYSTEMS[name], "--run_dir", run_dir)
        minutes = (time.perf_counter() - started) / 60
        (trained,) = re.findall(r"([\d.]+) M of [\d.]+ M parameters trained", printed)
        numbers = table_row(run("test.py", "--config_file", run_dir / "configs.yaml"))
        shown = [f"{number:.1f}" for number in numbers]
        table.add_row([name, SYSTEMS[name][1], f"{trained} M", *shown, f"{minutes:.1f}"])
        print(f"{name}: R1 {shown[0]}, {minutes:.1f} minutes", flush=True)
    print(table)


if __name__ == "__main__":
    main()
