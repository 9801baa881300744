"""What benchmarks of accuracy share: runs of the scripts at demo size that are made once, and how they are shown.

All start from the same towers, as published systems start from CLIP: those of the demo (``bash run.sh`` makes them).
They are trained on people whom the demo has not seen.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULT = "result.json"
"""what a finished run has beside its configs.yaml"""
METRICS = ("R1", "R5", "R10", "mAP", "mINP")


def run(script: str, *flags: object) -> str:
    """Run a script of the project and return what it printed; ends the benchmark where it fails."""
    done = subprocess.run([sys.executable, script, *map(str, flags)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def last_row(printed: str) -> dict[str, float]:
    """The metrics of the last t2i row."""
    row = re.findall(r"\| t2i +\|(.*)\|", printed)[-1]
    return dict(zip(METRICS, map(float, row.split("|")), strict=True))


def common_flags(args: argparse.Namespace, seed: int) -> list[str]:
    """What all systems share; of the arguments: start, root_dir, difficulty, train_ids and epochs."""
    drawing = ["--mannequin_difficulty", args.difficulty, "--mannequin_seed", "1"]
    drawing += ["--mannequin_train_ids", str(args.train_ids)]
    training = ["--num_epoch", str(args.epochs), "--lr", "3e-4", "--eval_period", str(args.epochs), "--cmt_depth", "2"]
    flags = ["--config_file", "configs/demo.yaml", "--root_dir", str(args.root_dir), "--finetune", str(args.start)]
    return [*flags, *drawing, *training, "--seed", str(seed)]


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
        tested = last_row(
            run("test.py", "--config_file", run_dir / "configs.yaml", "--checkpoint", run_dir / "last.pth")
        )
        path.write_text(json.dumps({**tested, "val R1": val, "trained": float(trained), "minutes": minutes}) + "\n")
        for checkpoint in run_dir.glob("*.pth"):
            checkpoint.unlink()
        print(f"{run_dir.name}: R1 {tested['R1']:.1f}, {minutes:.1f} minutes", flush=True)
    return json.loads(path.read_text())


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"
