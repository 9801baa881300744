"""run.json: the settings and results of a run, for comparing runs later."""

import hashlib
import json
import logging
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from utils import UserError
from utils.device import Precision
from utils.distributed import on_main, world_size
from utils.files import file_sha256, write_text

log = logging.getLogger("descry")

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "ftfy", "regex", "loralib")
"""those that influence the numbers"""
_ROOT = Path(__file__).parents[2]


class RunRecord:
    """run.json in a run directory; written when training starts, with every last.pth, and when it ends."""

    def __init__(self, folder: Path, facts: Mapping[str, Any], resumed: bool) -> None:
        """``facts``: see :func:`facts_of`. A ``resumed`` run keeps its start and adds to its time.

        Raises:
            UserError: the annotations are not those that a ``resumed`` run began with.
        """
        self.path = folder / "run.json"
        earlier = read_record(self.path) if resumed else {}
        if resumed and (not earlier or "earlier_record" in earlier):
            facts = {**facts, "earlier_record": "lost"}
        self._seconds, self._began = earlier.get("seconds", 0.0), time.monotonic()
        self._content = {**facts, "started": earlier.get("started", _now())}
        if facts["weights_sha256"] is None:  # a resumed run does not read --finetune again
            self._content["weights_sha256"] = earlier.get("weights_sha256")
        data = "annotation_sha256"
        if earlier.get(data) and earlier[data] != facts[data]:
            raise UserError(
                f"--resume: the annotations of the training data have changed since {folder} began, or the file of "
                "--noisy_file or --back_translation_file; restore them, or start a new run"
            )
        if earlier and (earlier.get("version"), earlier.get("modified")) != (facts["version"], facts["modified"]):
            log.warning("resumed with different code (was %s, is %s)", earlier.get("version"), facts["version"])

    def write(self, *, best: Mapping[str, float], last: Mapping[str, float], finished: bool = False) -> None:
        """Write the file as things stand; ``best`` and ``last`` are metrics with their epoch, or empty.

        The main process does so, the others wait for it.
        """
        content = {
            **self._content,
            "finished": _now() if finished else None,
            "seconds": round(self._seconds + time.monotonic() - self._began, 1),
            "peak_memory_bytes": peak_memory(self._content["device"]),
            "best": dict(best) or None,
            "last": dict(last) or None,
        }
        on_main(lambda: write_text(self.path, json.dumps(content, indent=1) + "\n"))


def facts_of(
    flags: Mapping[str, Any], precision: Precision, weights: Path | None, annotations: Sequence[Path]
) -> dict[str, Any]:
    """What run.json holds from the start; ``weights`` is the file that training starts from, None for random ones."""
    commit, modified = code_version()
    device = precision.device
    return {
        "version": commit,
        "modified": modified,
        "libraries": {"python": platform.python_version(), **_versions()},
        "device": str(device) if device.type == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})",
        "precision": precision.name,
        "processes": world_size(),
        "command": list(sys.argv),
        "flags": dict(flags),
        "losses": flags["loss_names"],
        "weights_sha256": weights and file_sha256(weights),
        "annotation_sha256": _digest(annotations),
        "seed": flags["seed"],
    }


def _digest(paths: Sequence[Path]) -> str | None:
    """The SHA-256 of a file, or of the digests of several one after another."""
    digests = [file_sha256(path) for path in paths]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if len(digests) > 1 else next(iter(digests), None)


def read_record(path: Path) -> dict[str, Any]:
    """The content of a run.json; empty, with a warning, where it is missing or not one."""
    try:
        return load_record(path)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        log.warning("%s: not readable (%s); when the run began and how long it took until now is lost", path, reason)
        return {}


def load_record(path: Path) -> dict[str, Any]:
    """The content of a run.json. Raises ValueError where it is not one, and OSError where it cannot be read."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"a JSON {type(content).__name__}")
    return content


def code_version() -> tuple[str | None, bool]:
    """The commit of the code and whether tracked files differ from it; (None, False) outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None or _git("ls-files", "--error-unmatch", "train.py") is None:
        return None, False  # the second: a checkout of something else, in which this code lies
    return commit, bool(_git("status", "--porcelain", "--untracked-files=no", "--", "."))


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=_ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def peak_memory(device: str) -> int:
    """Largest memory so far in bytes: PyTorch's on a GPU, otherwise that of the process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(torch.device(device.split()[0]))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")
