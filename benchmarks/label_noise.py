"""How systems bear mismatched captions: R1 on Mannequins by the share of exchanged training captions.

Every system starts from the same towers (those of the demo, ``bash run.sh``) and is trained on people that the demo has
not seen, with 0, 20 and 50 % of the captions exchanged, and several seeds. A benchmark that was stopped continues where
it was.

    python -m benchmarks.label_noise --start logs/Mannequins/TIME_demo/best.pth

Writes label_noise.md (the tables) and label_noise.png (R1 over noise; what the division finds over the epochs).
"""

import argparse
import statistics
from pathlib import Path

from benchmarks.runs import common_flags, result_of, spread
from processor.run_dir.curves import COLOURS, add_legend, label_axes, new_figure, save_png
from processor.run_dir.history import read_history

RDE = ["--loss_names", "TAL", "--select_ratio", "0.3", "--tse_lr", "1e-3", "--division_fit", "robust"]
SYSTEMS = {
    "RDE": RDE,
    "RDE without division": [*RDE, "--division", "none"],
    "IRRA": ["--loss_names", "sdm+id+mlm"],
    "itc": ["--loss_names", "itc"],
}
"""name to what differs from the common flags"""


def r1_of(name: str, rate: float, seed: int, args: argparse.Namespace) -> float:
    """R1 on the test identities, from an earlier run where there is one."""
    noise = ["--noisy_rate", rate, "--noisy_seed", seed, *args.more]
    return result_of(folder(name, rate, seed, args), [*common_flags(args, seed), *SYSTEMS[name], *noise])["R1"]


def folder(name: str, rate: float, seed: int, args: argparse.Namespace) -> Path:
    """Where a run goes."""
    return args.out / f"{name.replace(' ', '_')}-{rate:g}-{seed}"


def found(rate: float, args: argparse.Namespace) -> dict[str, list[list[float]]]:
    """What the division of RDE finds before each epoch: by name, per epoch, over the seeds."""
    histories = [read_history(folder("RDE", rate, seed, args)) for seed in args.seeds]
    runs = [[entry.division for entry in history if entry.division] for history in histories]
    names = ("precision", "recall", "used_matched")
    return {name: [[one[epoch][name] for one in runs] for epoch in range(len(runs[0]))] for name in names}


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="best.pth of the demo")
    parser.add_argument("--root_dir", type=Path, default=Path("data/methods"), help="where the people are drawn")
    parser.add_argument("--out", type=Path, default=Path("logs/label_noise"), help="where the runs go")
    parser.add_argument("--difficulty", default="medium")
    parser.add_argument("--train_ids", type=int, default=1500, help="people to train on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 0.2, 0.5])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further flags of train.py, for all runs")
    args = parser.parse_args()
    scores = {name: {rate: [] for rate in args.rates} for name in args.systems}
    for seed in args.seeds:  # seed by seed, so that an unfinished benchmark has something to compare
        for rate in args.rates:
            for name in args.systems:
                scores[name][rate].append(r1_of(name, rate, seed, args))
    lines = ["| system | " + " | ".join(f"{rate:.0%} exchanged" for rate in args.rates) + " |"]
    lines += ["|---" * (len(args.rates) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(map(spread, by_rate.values())) + " |" for name, by_rate in scores.items()]
    noisy = [rate for rate in args.rates if rate > 0] if "RDE" in args.systems else []
    figure, (left, *others) = new_figure(1 + len(noisy))
    for colour, (name, by_rate) in zip(COLOURS, scores.items(), strict=False):
        means = [statistics.mean(values) for values in by_rate.values()]
        bars = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in by_rate.values()]
        rates = [100 * rate for rate in by_rate]
        left.errorbar(rates, means, yerr=bars, label=name, color=colour, marker="o", markersize=4, capsize=3)
    label_axes(left, "captions exchanged (%)", "R1 (%)")
    for axes, rate in zip(others, noisy, strict=True):
        lines += ["", f"{rate:.0%} exchanged, division of RDE before each epoch (precision and recall of the pairs", ""]
        lines[-2] += " called noisy; share of the pairs used that are matched):"
        names = found(rate, args)
        lines += ["| epoch | precision | recall | used pairs that are matched |", "|---|---|---|---|"]
        for epoch, values in enumerate(zip(*names.values(), strict=True), start=1):
            lines.append(f"| {epoch} | " + " | ".join(map(spread, values)) + " |")
        for colour, (name, values) in zip(COLOURS, names.items(), strict=False):
            means = [statistics.mean(each) for each in values]
            epochs, label = range(1, len(means) + 1), name.replace("_", ", ")
            axes.plot(epochs, means, label=label, color=colour, marker="o", markersize=4)
        axes.set_ylim(0, 102)
        axes.xaxis.get_major_locator().set_params(integer=True)
        label_axes(axes, f"before epoch, {rate:.0%} exchanged", "percent")
    for axes in (left, *others):
        add_legend(axes)
    save_png(figure, args.out / "label_noise.png")
    (args.out / "label_noise.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
