"""Small runs of the scripts, and how to read what they leave."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from datasets.mannequins.draw import MannequinOptions
from tests.helpers.fork_server import ROOT, Forked

DRAWING = MannequinOptions(
    mannequin_train_ids=10,
    mannequin_val_ids=3,
    mannequin_test_ids=5,
    mannequin_images_per_id="2",
    mannequin_height=64,
)
SMALL = (
    *("--pretrain_choice", "tiny", "--img_size", "64", "32", "--num_workers", "0"),
    *("--batch_size", "8", "--num_epoch", "2", "--device", "cpu"),
)


def python(script: str, *args: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Run a script of the project, ``-m`` and a module or ``-c`` and code, as a user does, from its root.

    The process is forked from one that has imported torch; :func:`fresh_python` starts Python itself.
    """
    arguments = [script, *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", **environment}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with Forked(arguments, cwd, environment, out, err) as process:
            process.wait(200)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, process.returncode, out.read(), err.read())


def fresh_python(script: str, *args: object, **environment: str) -> subprocess.CompletedProcess:
    """The same, seconds slower, in an interpreter of its own."""
    command = [sys.executable, script, *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", **environment}
    return subprocess.run(
        command, cwd=ROOT, env=environment, preexec_fn=_no_ignored_signals, capture_output=True, text=True, timeout=200
    )


def started(script: str, *args: object) -> Forked:
    """A script on its own, as :func:`python`, in a process group that Ctrl-C can be sent to."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return Forked([script, *map(str, args)], ROOT, environment, subprocess.PIPE)


def fresh_started(script: str, *args: object) -> subprocess.Popen:
    """The same, seconds slower, in an interpreter of its own."""
    command = [sys.executable, script, *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, preexec_fn=_no_ignored_signals, **pipes
    )


def _no_ignored_signals() -> None:
    """A shell starts "pytest &" with SIGINT ignored, nohup with SIGHUP, which children inherit."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that all pytest workers of a session only read: the first to need it makes it, the others wait."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / f"{name}.made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (base / f"{name}.made").touch()
    return folder


def table(text: str, task: str = "t2i") -> list[float]:
    """The numbers of the last row of a task in printed PrettyTables."""
    rows = re.findall(rf"\| +{task} +\|((?: +[\d.]+ +\|)+)", text)
    assert rows, text
    return [float(cell) for cell in rows[-1].split("|") if cell.strip()]


def same_tensors(one: Path, other: Path) -> None:
    """Two checkpoints hold bit-identical tensors and numbers."""
    assert_same(torch.load(one, weights_only=True), torch.load(other, weights_only=True), "")


def assert_same(one: object, other: object, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where
