"""Every system at demo size, with several seeds: one table and one plot.

All start from the same towers and are trained on people and at a difficulty that the demo has not seen, each with its
own losses, adapters and augmentation and with everything else equal. Each gets the same small search for its learning
rate, with the first seed and chosen on the val identities; the table is of the test identities. A benchmark that was
stopped continues where it was.

    python -m benchmarks.methods --start logs/Mannequins/TIME_demo/best.pth

Writes methods.md and methods.png.
"""

import argparse
import statistics
from pathlib import Path

from benchmarks.runs import METRICS, common_flags, result_of, spread
from processor.run_dir.curves import COLOURS, label_axes, new_figure, save_png

TBPS_CLIP = ["--schedule_per", "step", "--decay", "matrices", "--beta", "0.98", "--freeze_patch_embedding"]
TBPS_CLIP += ["--text_dropout", "0.05", "--augment", "pool", "--word_deletion", "0.05"]
SYSTEMS = {
    "itc": ["--loss_names", "itc"],
    "itc+id": ["--loss_names", "itc+id"],
    "IRRA": ["--loss_names", "sdm+id+mlm"],
    "DGCMIA": ["--loss_names", "itc+itc1+cons+memory_soft"],
    "PHP": ["--loss_names", "sdm+itc+aux", "--cnum", "9", "--moe_layers", "2", "--moe_heads", "3"],
    "ECCL": ["--loss_names", "TAL+memory+instance_memory", "--lora_alpha", "4", "--prompt_depth", "2"],
    "ICLF": ["--loss_names", "itc+mlm+itm+id"],
    "RDE": ["--loss_names", "TAL", "--select_ratio", "0.3", "--division_fit", "robust"],
    "TBPS-CLIP": ["--loss_names", "nitc+ritc+citc+ss", "--mvs_image", *TBPS_CLIP],
    "TBPS-CLIP, simplified": ["--loss_names", "nitc+ritc", *TBPS_CLIP],
}
"""name to what differs from the common flags"""


def rates(factor: float) -> list[str]:
    """Flags of the learning rates: of towers and heads, of LoRA, of RDE's second embedding."""
    return ["--lr", f"{3e-4 * factor:g}", "--lora_lr", f"{2e-3 * factor:g}", "--tse_lr", f"{1e-3 * factor:g}"]


def result(name: str, factor: float, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Of one run."""
    run_dir = args.out / f"{name.replace(', ', '-').replace(' ', '_')}-{args.difficulty}-{factor:g}-{seed}"
    return result_of(run_dir, [*common_flags(args, seed), *SYSTEMS[name], *rates(factor)])


def best_factor(name: str, args: argparse.Namespace) -> float:
    """The factor of the learning rates with the best R1 on the val identities; of equals, the one nearest to 1."""
    found = {factor: result(name, factor, args.seeds[0], args)["val R1"] for factor in args.factors}
    return max(found, key=lambda factor: (found[factor], -abs(factor - 1)))


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """R1 of every system: all seeds, and their mean."""
    figure, (axes,) = new_figure(1, height=0.32 * len(found) + 0.7)
    for row, results in enumerate(found.values()):
        scores = [each["R1"] for each in results]
        axes.plot(scores, [row] * len(scores), "o", color=COLOURS[0], markersize=4, alpha=0.5)
        axes.plot(statistics.mean(scores), row, "|", color=COLOURS[1], markersize=14, markeredgewidth=2)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    label_axes(axes, "R1 (%); dots: seeds, line: mean", "")
    save_png(figure, path)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="best.pth of the demo")
    parser.add_argument("--root_dir", type=Path, default=Path("data/methods"), help="where the people are drawn")
    parser.add_argument("--out", type=Path, default=Path("logs/methods"), help="where the runs go")
    parser.add_argument("--difficulty", default="hard")
    parser.add_argument("--train_ids", type=int, default=1500, help="people to train on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--factors", type=float, nargs="+", default=[0.333, 1.0, 3.0], help="of the learning rates")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    args = parser.parse_args()
    chosen = {name: best_factor(name, args) for name in args.systems}
    found = {name: [result(name, factor, seed, args) for seed in args.seeds] for name, factor in chosen.items()}
    heads = ["system", "losses", "lr", "trained", *METRICS, "minutes"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, results in found.items():
        lr, minutes = rates(chosen[name])[1], statistics.mean(each["minutes"] for each in results)
        scores = [spread([each[metric] for each in results]) for metric in METRICS]
        cells = [name, SYSTEMS[name][1], lr, f"{results[0]['trained']:.2f} M", *scores, f"{minutes:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    (args.out / "methods.md").write_text("\n".join(lines) + "\n")
    draw(found, args.out / "methods.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
