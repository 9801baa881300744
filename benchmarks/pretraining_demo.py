"""Pre-training from end to end on drawn people: what it is worth, with sdm and with noise-aware masking.

People without identities are written in four of the published annotation forms. A part of the captions is noisy: words
are exchanged for other people's, or the whole caption is another image's. They are imported into shards, and small
towers are trained on them from random weights. Each is tested on people of another seed as it is (direct transfer) and
after fine-tuning on a few of them with identities, beside towers that never saw the shards. What is finished is kept.

From random weights sdm alone does not leave its plateau in the few hundred steps of this demo (real pre-training starts
from CLIP), so itc stands beside it, and beside noise-aware masking, with five times the weight.

    bash configs/pretraining_demo.sh
"""

import argparse
import csv
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from prettytable import PrettyTable

from benchmarks.runs import METRICS, run, spread
from datasets.mannequins.draw import draw
from datasets.mannequins.options import MannequinOptions
from datasets.shards.importing import import_shards
from datasets.shards.plan import ImportOptions
from utils.device import available_cores

FORMS = ("ham", "luperson-mllm", "mals", "csv")
SMALL = ["--pretrain_choice", "small", "--img_size", "96", "48", "--text_length", "44", "--optimizer", "AdamW"]
SMALL += ["--weight_decay", "0.05", "--lr_factor", "1", "--bias_lr_factor", "1", "--batch_size", "128"]
SMALL += ["--num_workers", "0", "--schedule_per", "step", "--temperature", "0.07", "--log_period", "50"]


def noisy(captions: dict[str, list[str]], wrong_words: float, wrong_person: float) -> dict[str, list[str]]:
    """The captions, some with a third of their words exchanged, some those of another image; always the same."""
    rng, everyone = random.Random(0), list(captions.values())
    words = [word for texts in everyone for text in texts for word in text.split()]

    def spoilt(text: str) -> str:
        fate = rng.random()
        if fate < wrong_person:
            return rng.choice(rng.choice(everyone))
        if fate < wrong_person + wrong_words:
            return " ".join(rng.choice(words) if rng.random() < 1 / 3 else word for word in text.split())
        return text

    return {name: [spoilt(text) for text in texts] for name, texts in captions.items()}


def write_annotation(form: str, captions: dict[str, list[str]], path: Path) -> None:
    """Some images in a published form, without identities."""
    content: object = captions
    if form == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [("path", "caption"), *((n, text) for n, texts in captions.items() for text in texts)]
            )
        return
    if form == "luperson-mllm":
        content = {name: texts[0] for name, texts in captions.items()}
    elif form == "mals":
        content = [
            {"image": name, "caption": texts[0], "image_id": str(number), "label": []}
            for number, (name, texts) in enumerate(captions.items())
        ]
    path.write_text(json.dumps(content))


def make_shards(folder: Path, options: MannequinOptions, wrong_words: float, wrong_person: float) -> list[Path]:
    """Draw people, write them in four forms with these shares of noisy captions, import each; what is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    people = folder / "people"
    if not (people / "reid_raw.json").exists():
        draw(people, options, workers=available_cores())
    records = json.loads((people / "reid_raw.json").read_text())
    clean = {Path(record["file_path"]).name: record["captions"] for record in records}
    captions = noisy(clean, wrong_words, wrong_person)
    shards = []
    for number, form in enumerate(FORMS):
        path = folder / f"{form}.{'csv' if form == 'csv' else 'json'}"
        if not path.exists():
            names = list(captions)[number :: len(FORMS)]
            write_annotation(form, {name: captions[name] for name in names}, path)
        options = ImportOptions(form, (path,), people / "imgs" / "train", resize=(96, 48))
        shards.append(import_shards(options, folder / f"shards-{form}", available_cores()).folder)
    return shards


def pretraining_flags(loss: str, shards: Sequence[Path]) -> list[object]:
    """A loss, with itc beside it, on shards."""
    losses = ["--loss_names", f"itc+{loss}", "--itc_loss_weight", 5]
    return ["--dataset_name", "Shards", "--root_dir", *shards, *losses, *SMALL]


def trained(run_dir: Path, flags: list[object]) -> Path:
    """The best.pth of a run, which is made or resumed if it is not finished."""
    record = run_dir / "run.json"
    if not (record.exists() and json.loads(record.read_text())["finished"]):
        resume = ["--resume", "--resume_ckpt_file", run_dir]
        run("train.py", *(resume if (run_dir / "last.pth").exists() else [*flags, "--run_dir", run_dir]))
    return run_dir / "best.pth"


def last_row(printed: str) -> dict[str, float]:
    """The metrics of the last t2i row."""
    row = re.findall(r"\| t2i +\|(.*)\|", printed)[-1]
    return dict(zip(METRICS, map(float, row.split("|")), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("data/pretraining_demo"), help="where everything goes")
    parser.add_argument("--ids", type=int, default=3000, help="people to pre-train on, two images each")
    parser.add_argument("--epochs", type=int, default=6, help="of pre-training")
    parser.add_argument("--labelled", type=int, default=150, help="people to fine-tune on")
    parser.add_argument("--finetune_epochs", type=int, default=12)
    parser.add_argument("--wrong_words", type=float, default=0.3, help="share of captions with wrong words")
    parser.add_argument("--wrong_person", type=float, default=0.1, help="share of captions of another image")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()

    people = MannequinOptions(args.ids, 0, 0, "2", mannequin_seed=1, mannequin_height=128)
    shards = make_shards(args.folder, people, args.wrong_words, args.wrong_person)
    labelled = args.folder / "labelled"
    drawing = ["--mannequin_seed", 2, "--mannequin_train_ids", args.labelled, "--mannequin_val_ids", 100]
    drawing += ["--mannequin_test_ids", 200, "--mannequin_images_per_id", "2", "--mannequin_height", 128]
    target = ["--dataset_name", "Mannequins", "--root_dir", labelled]
    found: dict[tuple[str, str], list[float]] = {}

    def test(start: str, when: str, run_dir: Path) -> None:
        row = last_row(run("test.py", "--config_file", run_dir / "configs.yaml", *target, *drawing))
        found.setdefault((start, when), []).append(row["R1"])
        print(f"{run_dir.name}, {when}: R1 {row['R1']:.1f}", flush=True)

    for seed in args.seeds:
        starts: dict[str, list[object]] = {"from scratch": []}
        for loss in ("sdm", "nam"):
            run_dir = args.folder / f"{loss}-{seed}"
            flags = [*pretraining_flags(loss, shards), "--val_sets", f"Mannequins={labelled}", *drawing]
            flags += ["--num_epoch", args.epochs, "--warmup_epochs", 1, "--lr", "2e-3"]
            starts[f"pre-trained with {loss}"] = ["--finetune", trained(run_dir, [*flags, "--seed", seed])]
            test(f"pre-trained with {loss}", "direct transfer", run_dir)
        for start, finetune in starts.items():
            run_dir = args.folder / f"finetuned-{start.split()[-1]}-{seed}"
            flags = [*target, *drawing, *SMALL, "--loss_names", "itc+id", "--num_epoch", args.finetune_epochs]
            flags += ["--warmup_epochs", 1, "--val_dataset", "val", "--cache", "--lr", "5e-4" if finetune else "2e-3"]
            trained(run_dir, [*flags, *finetune, "--seed", seed])
            test(start, "fine-tuned", run_dir)
    table = PrettyTable(["R1 on people of another seed", "direct transfer", "fine-tuned"])
    for start in sorted({start for start, _ in found}):
        cells = [found.get((start, when)) for when in ("direct transfer", "fine-tuned")]
        table.add_row([start, *("" if cell is None else spread(cell) for cell in cells)])
    print(table)


if __name__ == "__main__":
    main()
