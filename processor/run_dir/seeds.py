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
from processor.run_dir.layout import RunOptions, make_run_dir, run_directory
from processor.run_dir.record import read_record
from utils.distributed import on_main
from utils.files import write_text
from utils.options import Options

log = logging.getLogger("descry")

Metrics = Mapping[str, float]


def train_seeds(options: Options, folder: Path, train: Callable[[Path, Options], Progress]) -> None:
    """Train with each of ``--seeds`` in ``folder/seed_N``, then log a table and write seeds.txt and seeds.json.

    With ``--resume``, seeds that have finished are not trained again, and the one that was interrupted continues.

    ``train`` trains once in a directory, from flags.
    """
    results: dict[int, dict[str, Metrics]] = {}
    on_main(lambda: make_run_dir(folder, options))
    for seed in options.get(RunOptions).seeds:
        place = folder / f"seed_{seed}"
        results[seed] = _finished(place, options.flat()["num_epoch"])
        if not results[seed]:
            one = _one(options, seed, place)
            with run_directory(one.get(RunOptions), "") as place:
                outcome = train(place, one)
            results[seed] = {"best": outcome.best, "last": outcome.last}
    summary = {"seeds": results, **mean_and_std(results)}
    table = metrics_table(_rows(summary), f"t2i, {len(results)} seeds").get_string()
    on_main(lambda: write_text(folder / "seeds.json", json.dumps(summary, indent=1) + "\n"))
    on_main(lambda: write_text(folder / "seeds.txt", f"{table}\n"))
    log.info("%s\nin %s", table, folder / "seeds.txt")


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
    begun = (place / "configs.yaml").exists()
    last = str(place / "last.pth") if begun else ""
    return options.replaced(seed=seed, seeds=(), run_dir=place, resume=begun, resume_ckpt_file=last)


def mean_and_std(results: Mapping[int, Mapping[str, Metrics]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation (n - 1) over two or more seeds of every metric, of best and of last."""
    return {
        title: {
            which: {name: measure([result[which][name] for result in results.values()]) for name in METRICS}
            for which in ("best", "last")
        }
        for title, measure in (("mean", statistics.fmean), ("std", statistics.stdev))
    }


def _rows(summary: Mapping[str, Any]) -> dict[str, Metrics]:
    rows = {}
    for which in ("best", "last"):
        for seed, result in summary["seeds"].items():
            rows[f"{which}, seed {seed} (epoch {result[which]['epoch']})"] = result[which]
        rows |= {f"{which}, {title}": summary[title][which] for title in ("mean", "std")}
    return rows
