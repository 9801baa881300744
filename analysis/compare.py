"""One table of many runs: ``python -m analysis.compare logs/CUHK-PEDES/*``.

Every run directory gets a row for its best epoch and one for its last. Reads run.json and history.jsonl if they exist,
otherwise configs.yaml and train_log.txt, so that older runs and those of published programs get rows, too. What a run
does not record stays empty.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processor.metrics import METRICS
from processor.run_dir.history import read_history
from processor.run_dir.record import load_record
from utils import UserError
from utils.command import Parser, run_command
from utils.options import read_flags
from utils.tables import Table

CONFIGS = Path(__file__).parent.parent / "configs"
PLACES = (
    *("name", "output_dir", "run_dir", "resume", "resume_ckpt_file", "root_dir", "cache_dir"),
    *("device", "gpu_id", "num_workers"),
)
"""flags that say where a run was made, not what was trained"""
MOST_FLAGS = 5
"""more differing flags than this get a table of their own, except in a spreadsheet"""


@dataclass(frozen=True)
class Run:
    """What a run directory records."""

    path: Path
    flags: Mapping[str, Any]
    best: Mapping[str, float]
    """metrics of the best epoch in percent, and ``epoch``; empty if there was no evaluation"""
    last: Mapping[str, float]
    record: Mapping[str, Any]
    """content of run.json; empty for runs of programs that did not write one"""

    def gaps(self) -> str:
        """What is missing from it, in words."""
        gaps = [] if self.record else ["no run.json, so time and memory are unknown"]
        if self.record.get("earlier_record") == "lost":
            gaps.append("run.json was lost before the run was resumed, so time and memory are of the rest only")
        epoch, epochs = self.last.get("epoch", 0), self.flags.get("num_epoch")
        if not self.best:
            gaps.append("not evaluated yet")
        elif self.record and not self.record.get("finished"):
            gaps.append("not finished")
        elif isinstance(epochs, int | float) and epoch < epochs:
            gaps.append(f"stopped after epoch {epoch:.0f} of {epochs}")
        return "; ".join(gaps)


def is_run(path: Path) -> bool:
    """Whether a path is a run directory, of whatever age."""
    return (path / "configs.yaml").is_file() or (path / "run.json").is_file()


def runs_at(path: Path) -> list[Path]:
    """The runs directly below a path, as of several seeds; the path itself where there are none."""
    below = sorted(path.iterdir()) if path.is_dir() else []
    return [run for run in below if is_run(run)] or [path]


def read_run(path: Path) -> Run:
    """Everything that a run directory records.

    Raises:
        UserError: names the file that is damaged.
    """
    record = _read_record(path / "run.json") if (path / "run.json").is_file() else {}
    flags = read_flags(path / "configs.yaml") if (path / "configs.yaml").is_file() else record.get("flags", {})
    evaluations = [{**entry.val, "epoch": entry.epoch} for entry in read_history(path) if entry.val]
    evaluations = evaluations or _evaluations_in(path / "train_log.txt")
    best = record.get("best") or max(evaluations, key=lambda metrics: metrics["R1"], default={})
    last = record.get("last") or max(evaluations, key=lambda metrics: metrics["epoch"], default={})
    return Run(path, flags, best, last, record)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return load_record(path)
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); delete it to compare the run without it") from None


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
                epoch = 0  # later tables under this heading are of something else
    return [metrics for metrics in evaluations if "R1" in metrics]


def method_name(flags: Mapping[str, Any]) -> str:
    """The system in ``configs/`` whose losses these flags have, or the run's ``--name``."""
    for path in sorted(CONFIGS.glob("*.yaml")):
        losses = _losses(read_flags(path))
        if "_" not in path.stem and len(losses) > 1 and losses == _losses(flags):
            return path.stem.upper()
    return str(flags.get("name") or "")


def _losses(flags: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(part.strip() for part in str(flags.get("loss_names", "")).split("+"))


def differing_flags(runs: Sequence[Run]) -> list[str]:
    """Flags in which those runs that have them differ, except where the run was."""
    names = sorted({name for run in runs for name in run.flags} - {*PLACES, "loss_names"})
    return [name for name in names if len({_text(run.flags[name]) for run in runs if name in run.flags}) > 1]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def comparison(runs: Sequence[Run], flags: Sequence[str]) -> Table:
    """A row per run and result, the best epoch and the last: method, losses, some flags, metrics, time and memory."""
    rows = []
    for run, label in zip(runs, labels(runs), strict=True):
        first = [label, method_name(run.flags), *(_text(run.flags.get(name)) for name in ("loss_names", *flags))]
        results = {"best": run.best, "last": run.last}
        if run.best.get("epoch") == run.last.get("epoch"):
            results = {"best, last": run.best}
        for title, metrics in results.items():
            epoch = f"{metrics['epoch']:.0f} ({title})" if metrics else ""
            numbers = (f"{metrics[name]:.2f}" if name in metrics else "" for name in METRICS)
            rows.append((*first, epoch, *numbers, *_time_and_memory(run.record)))
    columns = ("run", "method", "losses", *flags, "epoch", *METRICS, "time", "memory")
    return Table(columns, tuple(rows), text_columns=3 + len(flags))


def flags_by_run(runs: Sequence[Run], flags: Sequence[str]) -> Table:
    """A row per flag, a column per run."""
    rows = ((name, *(_text(run.flags.get(name)) for run in runs)) for name in flags)
    return Table(("flag", *labels(runs)), tuple(rows), text_columns=1 + len(runs))


def labels(runs: Sequence[Run]) -> list[str]:
    """The folder of each run, with as many of its parents as are needed to tell the runs apart."""
    parts, depth = [run.path.absolute().parts for run in runs], 1
    while len({each[-depth:] for each in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(each[-depth:]) for each in parts]


def _time_and_memory(record: Mapping[str, Any]) -> tuple[str, str]:
    seconds, size = record.get("seconds"), record.get("peak_memory_bytes")
    minutes, rest = divmod(round(seconds or 0), 60)
    duration = "" if seconds is None else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    return duration, "" if size is None else f"{size / 1e9:.2f} GB"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; see the module's docstring."""
    parser = Parser(prog="python -m analysis.compare", description="One table of many runs.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN", help="run directories, or folders of them")
    parser.set_defaults(form="pretty")
    form = parser.add_mutually_exclusive_group()
    for name, text in (("csv", "for a spreadsheet"), ("latex", "for a paper"), ("markdown", "for an issue")):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=f"print it {text}")
    args = parser.parse_args(argv)
    missing = [str(path) for path in args.paths if not path.exists()]
    if missing:
        raise UserError(f"{', '.join(missing)}: no such directory")
    paths = [run for path in args.paths for run in runs_at(path)]
    skipped = [str(path) for path in paths if not is_run(path)]
    if skipped:
        print(f"skipped, no configs.yaml or run.json in it: {', '.join(skipped)}", file=sys.stderr)
    runs = [read_run(path) for path in paths if is_run(path)]
    if not runs:
        raise UserError("none of these is a run directory; expected paths such as logs/CUHK-PEDES/*")
    flags = differing_flags(runs)
    if args.form == "csv" or len(flags) <= MOST_FLAGS:
        tables = [comparison(runs, flags)]
    else:
        tables = [comparison(runs, ()), flags_by_run(runs, flags)]
    for table in tables:
        print(getattr(table, args.form)())
    for run, label in zip(runs, labels(runs), strict=True):
        if gaps := run.gaps():
            print(f"{label}: {gaps}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
