"""Loader processes: how many, and what they need."""

import logging
import resource
import shutil
from types import SimpleNamespace

import pytest

from datasets import options as module
from datasets.options import DataOptions
from utils import UserError


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    monkeypatch.setattr(logging.getLogger("descry"), "propagate", True)


@pytest.mark.parametrize(
    ("options", "workers", "said"),
    [
        (DataOptions(), 2, ""),
        (DataOptions(num_workers=0), 0, ""),
        (DataOptions(num_workers=2), 2, ""),
        (DataOptions(num_workers=5), 5, "--num_workers 5: this machine has only 2 cores"),
        (DataOptions(num_workers=1000), 8, "--num_workers 1000: this machine has 2 cores; starting 8, 4 per core"),
        (DataOptions(num_workers=12, many_workers=True), 12, "--num_workers 12: this machine has only 2 cores"),
    ],
)
def test_there_are_at_most_four_per_core_unless_told(
    options: DataOptions, workers: int, said: str, caplog: pytest.LogCaptureFixture
):
    options.check_workers()
    assert options.workers == workers
    assert said in caplog.text and bool(said) == bool(caplog.text)


def test_open_files(monkeypatch: pytest.MonkeyPatch):
    limits, raised = (40, 100), []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, to: raised.append(to))
    DataOptions(num_workers=3).check_workers()
    assert raised == [(100, 100)], "the limit that a process may set for itself is raised"
    with pytest.raises(UserError, match=r"4: may need 112 open files, the limit is 100; raise it \(ulimit"):
        DataOptions(num_workers=4).check_workers()
    DataOptions(num_workers=0).check_workers()


def test_shared_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
    DataOptions(num_workers=1).check_workers()
    with pytest.raises(UserError, match="2: needs at least 0.3 MB of shared memory, and /dev/shm has 0.2 MB"):
        DataOptions(num_workers=2).check_workers()
