"""One table of many runs: ``python -m analysis.compare logs/CUHK-PEDES/*``.

Every run directory gives a row per result that it has: the best epoch and the last one. Reads what is there: run.json
and history.jsonl where the run wrote them, otherwise configs.yaml and train_log.txt, so that older runs and those of
published programs have a row, too. What a run does not say stays empty.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processor.metrics.table import METRICS
from processor.run_dir.history import read_history
from utils.command import run_command
from utils.files import read_yaml
from utils.tables import Table

CONFIGS = Path(__file__).parent.parent / "configs"
PLACES = (
    *("name", "output_dir", "run_dir", "resume", "resume_ckpt_file", "root_dir", "cache_dir"),
    *("device", "gpu_id", "num_workers"),
)
"""flags that say where a run was, not what it was"""
MOST_FLAGS = 5
"""more differing flags than this get a table of their own, but for a spreadsheet"""


@dataclass(frozen=True)
class Run:
    """What a run directory tells about itself."""

    path: Path
    flags: Mapping[str, Any]
    best: Mapping[str, float] = field(default_factory=dict)
    """metrics of the best epoch in percent, and ``epoch``"""
    last: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    missing: tuple[str, ...] = ()
    """what it does not say, in words"""


def is_run(path: Path) -> bool:
    """Whether a path is a run directory, of whatever age."""
    return (path / "configs.yaml").is_file() or (path / "run.json").is_file()


def runs_at(path: Path) -> list[Path]:
    """The runs directly below a path, as of several seeds; the path itself where there are none."""
    below = sorted(path.iterdir()) if path.is_dir() else []
    return [run for run in below if is_run(run)] or [path]


def read_run(path: Path) -> Run:
    """Everything a run directory says about itself.

    Raises:
        ValueError: names the file that is damaged.
    """
    noted = _read_json(path / "run.json")
    flags = read_yaml(path / "configs.yaml") if (path / "configs.yaml").is_file() else noted.get("flags", {})
    evaluations = [{**entry.val, "epoch": entry.epoch} for entry in read_history(path) if entry.val]
    if not evaluations:
        evaluations = _evaluations_in(path / "train_log.txt")
    best = max(evaluations, key=lambda metrics: metrics["R1"], default={})
    last = max(evaluations, key=lambda metrics: metrics["epoch"], default={})
    best, last = noted.get("best") or best, noted.get("last") or last
    missing = [] if noted else ["no run.json: no time, no memory"]
    if not best:
        missing.append("not evaluated yet")
    elif noted and not noted.get("finished"):
        missing.append("not finished")
    elif last.get("epoch", 0) < _number(flags.get("num_epoch")):
        missing.append(f"stopped after epoch {last['epoch']:.0f} of {flags['num_epoch']}")
    return Run(path, flags, best, last, noted.get("seconds"), noted.get("peak_memory_bytes"), tuple(missing))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); delete it to compare the run without it") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, found {type(content).__name__}")
    return content


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0


_EPOCH = re.compile(r"(?:validation after epoch |Validation Results - Epoch: )(\d+)")
_ROW = re.compile(r"^\|\s*(task|t2i)\s*\|(.+)\|\s*$")


def _evaluations_in(log: Path) -> list[dict[str, float]]:
    """Metrics by epoch from the tables of a log, ours or IRRA's, whichever columns they have."""
    if not log.is_file():
        return []
    evaluations, epoch, titles = [], 0, list(METRICS)
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := _EPOCH.search(line):
            epoch = int(found[1])
        elif found := _ROW.match(line):
            cells = [cell.strip() for cell in found[2].split("|")]
            if found[1] == "task":
                titles = cells
            elif epoch:
                numbers = dict(zip(titles, map(float, cells), strict=False))
                evaluations.append({**{name: numbers[name] for name in METRICS if name in numbers}, "epoch": epoch})
                epoch = 0  # later tables under this heading are others
    return [metrics for metrics in evaluations if "R1" in metrics]


def method_name(flags: Mapping[str, Any], configs: Path = CONFIGS) -> str:
    """The system in ``configs/`` whose losses these flags have, or the run's ``--name``."""
    losses = _losses(flags)
    for path in sorted(configs.glob("*.yaml")):
        given = read_yaml(path)
        if "_" not in path.stem and len(_losses(given)) > 1 and _losses(given) == losses:
            return path.stem.upper()
    return str(flags.get("name") or "")


def _losses(flags: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(part.strip() for part in str(flags.get("loss_names", "")).split("+"))


def differing_flags(runs: Sequence[Run]) -> list[str]:
    """Flags in which those runs that have them differ, without those that say only where a run was."""
    names = sorted({name for run in runs for name in run.flags} - {*PLACES, "loss_names"})
    return [name for name in names if len({_shown(run.flags[name]) for run in runs if name in run.flags}) > 1]


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_shown(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def comparison(runs: Sequence[Run], flags: Sequence[str]) -> Table:
    """A row per run and epoch of note: method, losses, some flags, metrics, time and memory."""
    columns = ("run", "method", "losses", *flags, "epoch", *METRICS, "time", "memory")
    rows = []
    for run, label in zip(runs, _labels(runs), strict=True):
        first = [label, method_name(run.flags), *(_shown(run.flags.get(name)) for name in ("loss_names", *flags))]
        size = [_duration(run.seconds), _gigabytes(run.peak_memory_bytes)]
        same = run.best.get("epoch") == run.last.get("epoch")
        rows.append((*first, *_numbers(run.best, "best, last" if same else "best"), *size))
        if not same:
            rows.append((*first, *_numbers(run.last, "last"), *size))
    return Table(columns, tuple(rows), text_columns=3 + len(flags))


def flags_by_run(runs: Sequence[Run], flags: Sequence[str]) -> Table:
    """A row per flag, a column per run."""
    rows = ((name, *(_shown(run.flags.get(name)) for run in runs)) for name in flags)
    return Table(("flag", *_labels(runs)), tuple(rows), text_columns=1 + len(runs))


def _labels(runs: Sequence[Run]) -> list[str]:
    """Folder names, with as many of the folders above as tell the runs apart."""
    parts = [run.path.absolute().parts for run in runs]
    deepest = max(map(len, parts), default=1)
    for depth in range(1, deepest + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def _numbers(metrics: Mapping[str, float], which: str) -> list[str]:
    if not metrics:
        return [""] * (1 + len(METRICS))
    shown = [f"{metrics[name]:.2f}" if name in metrics else "" for name in METRICS]
    return [f"{metrics['epoch']:.0f} ({which})", *shown]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f} GB"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.compare", description="One table of many runs.", allow_abbrev=False
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN", help="run directories, or folders of such")
    form = parser.add_mutually_exclusive_group()
    for name, text in (("csv", "for a spreadsheet"), ("latex", "for a paper"), ("markdown", "for an issue")):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=f"print it {text}")
    args = parser.parse_args(argv)
    missing = [str(path) for path in args.paths if not path.exists()]
    if missing:
        raise ValueError(f"{', '.join(missing)}: no such directory")
    paths = [run for path in args.paths for run in runs_at(path)]
    left_out = [str(path) for path in paths if not is_run(path)]
    if left_out:
        print(f"left out, no configs.yaml or run.json in it: {', '.join(left_out)}", file=sys.stderr)
    runs = [read_run(path) for path in paths if is_run(path)]
    if not runs:
        raise ValueError("none of these is a run directory; name some as in logs/CUHK-PEDES/*")
    flags = differing_flags(runs)
    wide = args.form == "csv" or len(flags) <= MOST_FLAGS
    print(getattr(comparison(runs, flags if wide else ()), args.form or "pretty")())
    if not wide:
        print(getattr(flags_by_run(runs, flags), args.form or "pretty")())
    for run, label in zip(runs, _labels(runs), strict=True):
        if run.missing:
            print(f"{label}: {'; '.join(run.missing)}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
