"""TBPS-CLIP's ablation at demo size: R1 on Mannequins by tricks, augmentations and losses, and the time of an epoch.

Every row starts from the same towers (those of the demo, ``bash run.sh``) and is trained on people that the demo has
not seen, with several seeds. A benchmark that was stopped continues where it was.

    python -m benchmarks.tbps_clip --start logs/Mannequins/TIME_demo/best.pth

Writes tbps_clip.md. The times are those of epochs that take turns, the median of ``--rounds``.
"""

import argparse
import re
import statistics
import tempfile
from pathlib import Path

from benchmarks.runs import common_flags, result_of, run, spread

TRICKS = ["--schedule_per", "step", "--decay", "matrices", "--beta", "0.98", "--freeze_patch_embedding"]
DROPOUT = ["--text_dropout", "0.05"]
NITC = ["--loss_names", "nitc", *TRICKS, *DROPOUT]
VARIED = [*TRICKS, *DROPOUT, "--augment", "pool", "--word_deletion", "0.05"]
VIEWS = ("flip", "irra", "rotation", "crop", "jitter", "grayscale", "erasing", "blur", "pool", "pool_distinct")
ROWS = {
    "CLIP's loss (itc)": ["--loss_names", "itc", "--augment", "plain"],
    "N-ITC, plain images": [*NITC, "--augment", "plain"],
    "- without soft labels": [*NITC, "--augment", "plain", "--softlabel_ratio", "0"],
    "- without dropout": ["--loss_names", "nitc", *TRICKS, "--augment", "plain"],
    "- with the patch convolution trained": [*NITC, "--augment", "plain", "--no_freeze_patch_embedding"],
    **{f"images: {view}": [*NITC, "--augment", view] for view in VIEWS},
    "captions: words deleted": [*NITC, "--augment", "plain", "--word_deletion", "0.05"],
    "pool and deletion": ["--loss_names", "nitc", *VARIED],
    "+ SS-I": ["--loss_names", "nitc+ss", *VARIED],
    "+ MVS-I": ["--loss_names", "nitc", "--mvs_image", *VARIED],
    "+ R-ITC (the simplified TBPS-CLIP)": ["--loss_names", "nitc+ritc", *VARIED],
    "+ C-ITC": ["--loss_names", "nitc+citc", *VARIED],
    "all (TBPS-CLIP)": ["--loss_names", "nitc+ritc+citc+ss", "--mvs_image", *VARIED],
    "IRRA": ["--loss_names", "sdm+id+mlm", "--img_aug"],
}
"""name to what differs from the common flags"""
TIMED = ("IRRA", "+ R-ITC (the simplified TBPS-CLIP)", "all (TBPS-CLIP)")


def r1_of(name: str, seed: int, args: argparse.Namespace) -> float:
    """R1 on the test identities, from an earlier run where there is one."""
    run_dir = args.out / f"{list(ROWS).index(name):02d}-{seed}"
    return result_of(run_dir, [*common_flags(args, seed), *ROWS[name]])["R1"]


def epoch_seconds(name: str, args: argparse.Namespace) -> float:
    """What an epoch of training takes, without validation."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--num_epoch", "1", "--log_period", "1000", "--run_dir", Path(folder) / "run"]
        printed = run("train.py", *common_flags(args, 1), *ROWS[name], *flags)
    steps, rate = re.findall(r"step \d+/(\d+): .* ([\d.]+) steps/s", printed)[-1]
    return int(steps) / float(rate)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="best.pth of the demo")
    parser.add_argument("--root_dir", type=Path, default=Path("data/methods"), help="where the people are drawn")
    parser.add_argument("--out", type=Path, default=Path("logs/tbps_clip"), help="where the runs go")
    parser.add_argument("--difficulty", default="medium")
    parser.add_argument("--train_ids", type=int, default=600, help="people to train on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=5, help="timed epochs of each system")
    args = parser.parse_args()
    scores: dict[str, list[float]] = {name: [] for name in ROWS}
    for seed in args.seeds:
        for name in ROWS:
            scores[name].append(r1_of(name, seed, args))
    lines = ["| | R1 |", "|---|---|", *(f"| {name} | {spread(values)} |" for name, values in scores.items())]
    times: dict[str, list[float]] = {name: [] for name in TIMED}
    for _ in range(args.rounds):
        for name in TIMED:
            times[name].append(epoch_seconds(name, args))
    medians = {name: statistics.median(values) for name, values in times.items()}
    lines += ["", "| | seconds per epoch | IRRA = 1 |", "|---|---|---|"]
    lines += [f"| {name} | {value:.1f} | {value / medians['IRRA']:.2f} |" for name, value in medians.items()]
    (args.out / "tbps_clip.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
