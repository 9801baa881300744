"""Every system at demo size and in equal time, with several seeds, against our own recipe: tables and a plot.

All start from the same towers and are trained on people and at a difficulty that the demo has not seen, each with its
own losses, adapters and optimiser and with everything else equal. IRRA is trained for ``--epochs``, every other system
for as many as take the same time; what an epoch takes is measured first. Each gets the same small search for its
learning rate, with the first seed and by the val identities, once with all people and once with few; the tables are of
the test identities. Settings: all people; with a fifth of the captions exchanged; with a tenth of the people, for four
times the epochs. A benchmark that was stopped continues where it was.

IRRA and our recipe are also trained from towers that were pre-trained before, with sdm or nam (itc beside them): from
the same start, on twice as many other people without identities and with noisy captions, from shards. That comes on top
of their time.

    python -m benchmarks.methods --start logs/Mannequins/TIME_demo/best.pth

Writes methods.md and methods.png.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

from benchmarks.pretraining_demo import last_row, make_shards, pretraining_flags, trained
from benchmarks.runs import METRICS, ROOT, common_flags, epoch_seconds, mean_queries, result_of, run, spread
from datasets.mannequins.options import MannequinOptions
from processor.metrics.confidence import compare_queries
from processor.run_dir.curves import COLOURS, label_axes, new_figure, save_png
from utils.files import read_yaml

TBPS_CLIP = ["--decay", "matrices", "--beta", "0.98", "--freeze_patch_embedding"]
TBPS_CLIP += ["--text_dropout", "0.05", "--augment", "pool", "--word_deletion", "0.05"]
REFERENCE, OURS = "IRRA", "Descry"


def recipe() -> list[str]:
    """The flags of our own recipe, but for the number of epochs."""
    flags = read_yaml(ROOT / "configs" / "descry.yaml")
    return [text for name, value in flags.items() if name != "num_epoch" for text in (f"--{name}", str(value))]


SYSTEMS = {
    "CLIP's loss": ["--loss_names", "itc"],
    REFERENCE: ["--loss_names", "sdm+id+mlm"],
    "DGCMIA": ["--loss_names", "itc+itc1+cons+memory_soft"],
    "PHP": ["--loss_names", "sdm+itc+aux", "--cnum", "9", "--moe_layers", "2", "--moe_heads", "3"],
    "ECCL": ["--loss_names", "TAL+memory+instance_memory", "--lora_alpha", "4", "--prompt_depth", "2"],
    "ICLF": ["--loss_names", "itc+mlm+itm+id"],
    "RDE": ["--loss_names", "TAL", "--select_ratio", "0.3", "--division_fit", "robust"],
    "TBPS-CLIP": ["--loss_names", "nitc+ritc+citc+ss", "--mvs_image", *TBPS_CLIP],
    "TBPS-CLIP, simplified": ["--loss_names", "nitc+ritc", *TBPS_CLIP],
    OURS: recipe(),
}
"""name to what differs from the common flags"""
PRETRAINED = {f"{name}, pre-trained with {loss}": (name, loss) for name in (REFERENCE, OURS) for loss in ("sdm", "nam")}
"""name to the system, and the loss of the pre-training before it"""
NAMES = [*SYSTEMS, *PRETRAINED]
SETTINGS = {
    "all people": ([], 1.0, 1),
    "a fifth of the captions exchanged": (["--noisy_rate", "0.2"], 1.0, 1),
    "a tenth of the people": ([], 0.1, 4),
}
"""name to flags, share of the people, and how many times the epochs"""
TIMED_IDS = 600
DEMO = read_yaml(ROOT / "configs" / "demo.yaml")
PRETRAINING_EPOCHS, NOISE = 6, {"wrong_words": 0.3, "wrong_person": 0.1}
"""of pre-training; shares of its captions with wrong words, and of another image"""
PAIRS_PER_ID, WARMUP = MannequinOptions.mannequin_captions_per_image * int(DEMO["mannequin_images_per_id"]), 0.1
"""of the drawn people; share of the steps"""


def system_of(name: str) -> str:
    """The system, which may be a pre-trained one."""
    return PRETRAINED[name][0] if name in PRETRAINED else name


def people_flags(train_ids: int, args: argparse.Namespace) -> list[str]:
    """Who is drawn, to train on and to test on."""
    drawn = {"difficulty": args.difficulty, "seed": 1, "train_ids": train_ids, "val_ids": 200, "test_ids": 500}
    drawn |= {name: DEMO[f"mannequin_{name}"] for name in ("images_per_id", "height")}
    return [text for name, value in drawn.items() for text in (f"--mannequin_{name}", str(value))]


def pretrained(loss: str, args: argparse.Namespace) -> Path:
    """The start after pre-training on shards of other people, validated on the target's; made once."""
    people = MannequinOptions(
        2 * args.train_ids,
        mannequin_val_ids=0,
        mannequin_test_ids=0,
        mannequin_images_per_id="2",
        mannequin_seed=3,
        mannequin_difficulty=args.difficulty,
        mannequin_height=int(DEMO["mannequin_height"]),
    )
    shards = make_shards(args.root_dir / "pretraining", people, **NOISE)
    flags = [*pretraining_flags(loss, shards), "--finetune", args.start, "--num_epoch", PRETRAINING_EPOCHS]
    flags += ["--lr", "9e-4", "--warmup_epochs", 1, "--val_sets", f"Mannequins={args.root_dir / str(args.train_ids)}"]
    return trained(args.out / f"pretrained-{loss}", [*flags, *people_flags(args.train_ids, args)])


def direct_transfer(loss: str, args: argparse.Namespace) -> float:
    """R1 of the pre-trained start on the test identities."""
    people = ["--dataset_name", "Mannequins", "--root_dir", args.root_dir / str(args.train_ids)]
    run_dir = pretrained(loss, args).parent
    printed = run("test.py", "--config_file", run_dir / "configs.yaml", *people, *people_flags(args.train_ids, args))
    return last_row(printed)["R1"]


def flags_of(name: str, setting: str, epochs: int, seed: int, args: argparse.Namespace) -> list[str]:
    """Of one run, without its learning rate."""
    more, share, _ = SETTINGS[setting]
    ids = round(args.train_ids * share)
    start = pretrained(PRETRAINED[name][1], args) if name in PRETRAINED else args.start
    changed = {"train_ids": ids, "root_dir": args.root_dir / str(ids), "epochs": epochs, "start": start}
    given = argparse.Namespace(**{**vars(args), **changed})
    splits = [*people_flags(ids, args), "--noisy_seed", str(seed)]
    steps = epochs * math.ceil(ids * PAIRS_PER_ID / DEMO["batch_size"])
    schedule = ["--schedule_per", "step", "--warmup_steps", str(math.ceil(WARMUP * steps))]
    return [*common_flags(given, seed), *splits, *SYSTEMS[system_of(name)], *schedule, *more]


def rates(name: str, factor: float) -> list[str]:
    """Flags of the learning rates: of towers and heads, of LoRA, of RDE's second embedding (ours leaves it alone)."""
    second = [] if system_of(name) == OURS else ["--tse_lr", f"{1e-3 * factor:g}"]
    return ["--lr", f"{3e-4 * factor:g}", "--lora_lr", f"{2e-3 * factor:g}", *second]


def seconds(name: str, args: argparse.Namespace) -> float:
    """What an epoch of a system takes, on fewer people."""
    name = system_of(name)
    path = args.out / f"seconds-{slug(name)}.json"
    if not path.exists():
        given = argparse.Namespace(**{**vars(args), "train_ids": TIMED_IDS})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(epoch_seconds(flags_of(name, "all people", 2, 1, given))))
    return json.loads(path.read_text())


def epochs_of(name: str, setting: str, args: argparse.Namespace) -> int:
    """As many as take the time of the reference."""
    share = seconds(REFERENCE, args) / seconds(name, args)
    return max(1, round(args.epochs * SETTINGS[setting][2] * share))


def slug(name: str) -> str:
    """As part of a file's name."""
    return name.replace(", ", "-").replace(" ", "_").replace("'", "")


def folder(name: str, setting: str, factor: float, seed: int, args: argparse.Namespace) -> Path:
    """Where a run goes."""
    return args.out / f"{slug(setting)}-{slug(name)}-{factor:g}-{seed}"


def result(name: str, setting: str, factor: float, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Of one run."""
    flags = flags_of(name, setting, epochs_of(name, setting, args), seed, args)
    return result_of(folder(name, setting, factor, seed, args), [*flags, *rates(name, factor)])


def best_factor(name: str, setting: str, args: argparse.Namespace) -> float:
    """The factor of the learning rates with the best R1 on the val identities, of a setting with as many people.

    Begins with the two in the middle and goes on in the direction of the better one for as long as R1 rises.
    """
    factors = sorted(args.factors)
    searched = next(each for each, (_, share, _) in SETTINGS.items() if share == SETTINGS[setting][1])

    def val(place: int) -> float:
        return result(name, searched, factors[place], args.seeds[0], args)["val R1"]

    place = (len(factors) - 1) // 2
    step = 1 if place + 1 < len(factors) and val(place + 1) > val(place) else -1
    while 0 <= place + step < len(factors) and val(place + step) > val(place):
        place += step
    return factors[place]


def table(setting: str, chosen: dict[str, float], found: dict[str, list[dict]], args: argparse.Namespace) -> list[str]:
    """A row per system, and how far our recipe is from it: difference, 95 % interval and p over all seeds.

    The time is that of the epochs, IRRA's being 1.
    """
    heads = ["system", "losses", "lr", "epochs", "time", "trained", *METRICS, f"{OURS} is better by (R1)"]
    lines = [f"**{setting.capitalize()}**", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]

    queries = {
        name: mean_queries(folder(name, setting, factor, seed, args) for seed in args.seeds)
        for name, factor in chosen.items()
    }
    for name, results in found.items():
        gap = ""
        if OURS in found and name != OURS:
            (ours, pids), (theirs, _) = queries[OURS], queries[name]
            value, low, high, p = compare_queries(ours, theirs, pids)["R1"]
            gap = f"{value:+.1f} ({low:+.1f} to {high:+.1f}), p {p:.4f}"
        epochs = epochs_of(name, setting, args)
        time = epochs * seconds(name, args) / (epochs_of(REFERENCE, setting, args) * seconds(REFERENCE, args))
        scores = [spread([each[metric] for each in results]) for metric in METRICS]
        flags = SYSTEMS[system_of(name)]
        losses = flags[flags.index("--loss_names") + 1]
        cells = [name, losses, rates(name, chosen[name])[1], str(epochs), f"{time:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{results[0]['trained']:.2f} M", *scores, gap]) + " |")
    return [*lines, ""]


def draw(found: dict[str, dict[str, list[dict[str, float]]]], path: Path) -> None:
    """R1 of every system in every setting: all seeds, and their mean."""
    names = list(dict.fromkeys(name for results in found.values() for name in results))
    figure, panels = new_figure(len(found), height=0.32 * len(names) + 0.7)
    for axes, (setting, by_name) in zip(panels, found.items(), strict=True):
        for row, name in enumerate(names):
            scores = [each["R1"] for each in by_name.get(name, [])]
            if scores:
                axes.plot(scores, [row] * len(scores), "o", color=COLOURS[0], markersize=4, alpha=0.5)
                axes.plot(statistics.mean(scores), row, "|", color=COLOURS[1], markersize=14, markeredgewidth=2)
        axes.set_yticks(range(len(names)), names if axes is panels[0] else [""] * len(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        label_axes(axes, f"R1 (%), {setting}", "")
    save_png(figure, path)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="best.pth of the demo")
    parser.add_argument("--root_dir", type=Path, default=Path("data/methods"), help="where the people are drawn")
    parser.add_argument("--out", type=Path, default=Path("logs/methods"), help="where the runs go")
    parser.add_argument("--difficulty", default="hard")
    parser.add_argument("--train_ids", type=int, default=1500, help="people to train on")
    parser.add_argument("--epochs", type=int, default=2, help="of IRRA; the others get the same time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--factors", type=float, nargs="+", default=[0.1, 0.333, 1.0, 3.0, 10.0], help="of the learning rates"
    )
    parser.add_argument("--systems", nargs="+", default=NAMES, choices=NAMES, metavar="NAME")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--only_time", action="store_true", help="measure what an epoch takes, and no more")
    args = parser.parse_args()
    for name in dict.fromkeys([REFERENCE, *map(system_of, args.systems)]):
        print(f"{name}: {seconds(name, args):.1f} s for an epoch of {TIMED_IDS} people", flush=True)
    if args.only_time:
        return
    found, lines = {}, []
    for setting in args.settings:
        chosen = {name: best_factor(name, setting, args) for name in args.systems}
        found[setting] = {
            name: [result(name, setting, factor, seed, args) for seed in args.seeds] for name, factor in chosen.items()
        }
        lines += table(setting, chosen, found[setting], args)
    for loss in dict.fromkeys(PRETRAINED[name][1] for name in args.systems if name in PRETRAINED):
        lines.append(
            f"Pre-trained with {loss}, tested without training on these people: R1 {direct_transfer(loss, args)}"
        )
    (args.out / "methods.md").write_text("\n".join(lines))
    draw(found, args.out / "methods.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
