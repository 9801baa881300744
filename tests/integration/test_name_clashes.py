"""Installed packages that are called like ours: each program must find its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.runs import fresh_python, python

NAMES = ("datasets", "model", "solver", "processor", "analysis", "gallery", "exports", "utils")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which packages of all these names are installed, and one that needs its own ``datasets``."""
    site = tmp_path_factory.mktemp("site")
    for name in NAMES:
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(f"raise ImportError('the installed {name}')\n")
    return {"PYTHONPATH": str(site)}


@pytest.mark.parametrize(
    ("run", "command"),
    [
        (fresh_python, ("train.py",)),
        *((python, (script,)) for script in ("test.py", "search.py", "export.py")),
        (fresh_python, ("-m", "datasets.mannequins")),
        (python, ("-m", "analysis.compare")),
    ],
)
def test_our_programs_find_our_packages(environment: dict[str, str], run: Callable, command: tuple[str, ...]):
    done = run(*command, "--help", **environment)
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
    done = python("-c", program, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
