"""One setting trained with several seeds, and what the results have in common."""

import json
import logging
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from processor.metrics import METRICS
from processor.metrics.table import metrics_table
from processor.progress import Progress
from processor.run_dir.layout import RunOptions, make_run_dir
from processor.run_dir.record import read_record
from utils.distributed import on_main
from utils.files import replacing
from utils.options import Options

log = logging.getLogger("descry")

Metrics = Mapping[str, float]


def train_seeds(options: Options, folder: Path, train: Callable[[Options], Progress]) -> None:
    """Train with each of ``--seeds`` in ``folder/seed_N``, then log a table and write seeds.txt and seeds.json.

    With ``--resume``, seeds that have finished are not trained again, and the one that was interrupted continues.

    Args:
        options: all flags.
        folder: the run directory.
        train: trains once from flags, in the directory that they name.
    """
    results: dict[int, dict[str, Metrics]] = {}
    on_main(lambda: make_run_dir(folder, options))
    for seed in options.get(RunOptions).seeds:
        place = folder / f"seed_{seed}"
        results[seed] = _finished(place, options.flat()["num_epoch"])
        if not results[seed]:
            outcome = train(_one(options, seed, place))
            results[seed] = {"best": outcome.best, "last": outcome.last}
    summary = {"seeds": results, **mean_and_std(results)}
    table = metrics_table(_rows(summary), f"t2i, {len(results)} seeds").get_string()
    on_main(lambda: _write(folder, {"seeds.json": json.dumps(summary, indent=1), "seeds.txt": table}))
    log.info("%s\nin %s", table, folder / "seeds.txt")


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        with replacing(folder / name) as file:
            file.write(f"{text}\n".encode())


def _finished(place: Path, num_epoch: int) -> dict[str, Metrics]:
    """The result of a seed that has been trained to the end, from its run.json; else empty."""
    if not (place / "run.json").exists():
        return {}
    record = read_record(place / "run.json")
    best, last = record.get("best"), record.get("last")
    whole = record.get("finished") and best and last and last["epoch"] == num_epoch
    return {"best": best, "last": last} if whole else {}


def _one(options: Options, seed: int, place: Path) -> Options:
    """The flags of one seed, as if it were a run of its own."""
    changed: dict[str, Any] = {"seed": seed, "seeds": (), "run_dir": place}
    begun = (place / "configs.yaml").exists()
    resuming = {"resume": begun, "resume_ckpt_file": str(place / "last.pth") if begun else ""}
    return options.replaced(**changed, **resuming)


def mean_and_std(results: Mapping[int, Mapping[str, Metrics]]) -> dict[str, dict[str, dict[str, float]]]:
    """Over seeds: mean and standard deviation (n - 1) of every metric, of best and of last.

    Args:
        results: best and last by seed; two seeds or more.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for title, measure in (("mean", statistics.fmean), ("std", statistics.stdev)):
        summary[title] = {
            which: {name: measure([result[which][name] for result in results.values()]) for name in METRICS}
            for which in ("best", "last")
        }
    return summary


def _rows(summary: Mapping[str, Any]) -> dict[str, Metrics]:
    rows = {}
    for which in ("best", "last"):
        for seed, result in summary["seeds"].items():
            rows[f"{which}, seed {seed} (epoch {result[which]['epoch']})"] = result[which]
        rows |= {f"{which}, {title}": summary[title][which] for title in ("mean", "std")}
    return rows
