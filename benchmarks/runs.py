"""What benchmarks of accuracy share: runs of the scripts at demo size that are made once, and how they are shown.

All start from the same towers, as published systems start from CLIP: those of the demo (``bash run.sh`` makes them).
They are trained on people whom the demo has not seen.
"""

import argparse
import itertools
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from analysis.evaluated_run import RetrievalOptions
from analysis.significance import evaluate_checkpoint
from analysis.testing import UNREAD
from datasets.options import data_options
from model.build import model_options
from processor.metrics.ranks import QueryMetrics
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT
from utils.command import parse
from utils.device import TestDeviceOptions, pick_precision

ROOT = Path(__file__).parents[1]
RESULT = "result.json"
"""what a finished run has beside its configs.yaml"""
QUERIES = "queries.pt"
"""what each test query contributes to the metrics of such a run"""
METRICS = ("R1", "R5", "R10", "mAP", "mINP")


def run(script: str, *flags: object) -> str:
    """Run a script of the project and return what it printed; ends the benchmark where it fails."""
    done = subprocess.run([sys.executable, script, *map(str, flags)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def common_flags(args: argparse.Namespace, seed: int) -> list[str]:
    """What all systems share; of the arguments: start, root_dir, difficulty, train_ids and epochs."""
    drawing = ["--mannequin_difficulty", args.difficulty, "--mannequin_seed", "1"]
    drawing += ["--mannequin_train_ids", str(args.train_ids)]
    training = ["--num_epoch", str(args.epochs), "--lr", "3e-4", "--eval_period", str(args.epochs), "--cmt_depth", "2"]
    files = ["--config_file", "configs/demo.yaml", "--root_dir", str(args.root_dir), "--finetune", str(args.start)]
    return [*files, *drawing, *training, "--optimizer", "AdamW", "--seed", str(seed)]


def result_of(run_dir: Path, flags: Sequence[object]) -> dict[str, float]:
    """The last checkpoint's metrics on the test identities, from an earlier run where there is one.

    Beside them: ``val R1`` on the val identities, ``trained`` (millions of parameters) and ``minutes`` of training. A
    run that was stopped is resumed. Checkpoints of a finished one are removed.
    """
    path = run_dir / RESULT
    if not path.exists():
        started = time.perf_counter()
        if (run_dir / "last.pth").exists():
            printed = run("train.py", "--resume", "--resume_ckpt_file", run_dir)
        else:
            shutil.rmtree(run_dir, ignore_errors=True)
            printed = run("train.py", *flags, "--run_dir", run_dir)
        minutes = (time.perf_counter() - started) / 60
        (trained,) = re.findall(r"([\d.]+) M of [\d.]+ M parameters trained", printed)
        history = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
        val = [entry["val"]["R1"] for entry in history if entry.get("val")][-1]
        tested = _test(run_dir)
        path.write_text(json.dumps({**tested, "val R1": val, "trained": float(trained), "minutes": minutes}) + "\n")
        for checkpoint in run_dir.glob("*.pth"):
            checkpoint.unlink()
        print(f"{run_dir.name}: R1 {tested['R1']:.1f}, {minutes:.1f} minutes", flush=True)
    return json.loads(path.read_text())


def _test(run_dir: Path) -> dict[str, float]:
    """The last checkpoint's metrics on the test identities; keeps what each query contributes."""
    groups = {"test": [RetrievalOptions, TestDeviceOptions], **data_options(), **model_options()}
    argv = ["--config_file", str(run_dir / "configs.yaml")]
    options = parse(groups, argv, "", PUBLISHED_WITHOUT_EFFECT, UNREAD, lenient=True)
    found = evaluate_checkpoint(run_dir / "last.pth", options, pick_precision(options.get(TestDeviceOptions)))
    queries = found.queries["t2i"]
    kept = {"first_rank": queries.first_rank, "values": queries.values, "pids": found.features.query_pids.cpu()}
    torch.save(kept, run_dir / QUERIES)
    return {name: found.rows["t2i"][name] for name in METRICS}


def mean_queries(run_dirs: Iterable[Path]) -> tuple[QueryMetrics, Tensor]:
    """What each query contributes in the mean over runs that were tested on the same ones, and their identities (Q,).

    The rank of a first match is not averaged: it only says whether a query has one.
    """
    runs = [torch.load(run_dir / QUERIES, weights_only=True) for run_dir in run_dirs]
    values = {name: torch.stack([each["values"][name] for each in runs]).mean(0) for name in runs[0]["values"]}
    return QueryMetrics(runs[0]["first_rank"], values), runs[0]["pids"]


def epoch_seconds(flags: Sequence[object]) -> float:
    """What an epoch takes, with all that comes before its steps but without validation: the median after the first."""
    with tempfile.TemporaryDirectory() as folder:
        more = ["--num_epoch", "4", "--eval_period", "4", "--log_period", "100000", "--run_dir", Path(folder) / "run"]
        run("train.py", *flags, *more)
        lines = (Path(folder) / "run" / "train_log.txt").read_text().splitlines()
    ends = [line for line in lines if re.search(r"epoch \d+ step (\d+)/\1:", line)]
    times = [datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f") for line in ends]
    return statistics.median((after - before).total_seconds() for before, after in itertools.pairwise(times))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"
