"""Installed packages that are called like ours: each program must find its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT

NAMES = ("datasets", "model", "solver", "processor", "analysis", "gallery", "exports", "utils")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which packages of all these names are installed, and one that needs its own ``datasets``."""
    site = tmp_path_factory.mktemp("site")
    for name in NAMES:
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(f"raise ImportError('the installed {name}')\n")
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.mark.parametrize(
    "command",
    [
        ("train.py",),
        ("test.py",),
        ("search.py",),
        ("export.py",),
        ("-m", "datasets.mannequins"),
        ("-m", "analysis.compare"),
    ],
    ids=" ".join,
)
def test_our_programs_find_our_packages(environment: dict[str, str], command: tuple[str, ...]):
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_a_library_that_asks_for_an_optional_datasets_is_imported_from_the_checkout(tmp_path: Path):
    """As transformers does: it looks whether there is a module, then for a distribution of that name."""
    (tmp_path / "library.py").write_text(
        "import importlib.metadata, importlib.util\n"
        "found = importlib.util.find_spec('datasets') is not None\n"
        "try:\n"
        "    found = found and bool(importlib.metadata.version('datasets'))\n"
        "except importlib.metadata.PackageNotFoundError:\n"
        "    found = False\n"
        "if found:\n"
        "    from datasets import load_dataset\n"
    )
    program = "import library, datasets; assert 'CUHK-PEDES' in datasets.DATASETS"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
