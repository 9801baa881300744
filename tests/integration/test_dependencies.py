"""Dependencies: each is named in one list, pinned, and the same for pip and conda."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.runs import ROOT

LISTS = ("run", "search", "export", "dev")
"""requirements/NAME.in; each is installed together with those before it"""
IMPORTERS = {
    "run": [f"{package}/**/*.py" for package in ("utils", "datasets", "model", "solver", "processor")],
    "search": ["analysis/**/*.py", "gallery/**/*.py", "train.py", "test.py", "search.py"],
    "export": ["exports/**/*.py", "export.py"],
    "dev": ["tests/**/*.py", "benchmarks/**/*.py", ".github/**/*.py"],
}
"""which files may import what a list names"""
DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "faiss": "faiss-cpu",
    "open_clip": "open-clip-torch",
}
"""packages that are imported under another name than they are installed"""


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def pins() -> set[str]:
    """The lines NAME==VERSION of requirements.txt."""
    return set(re.findall(r"^[a-z0-9].*==.*$", (ROOT / "requirements.txt").read_text(), re.M))


def named(*lists: str) -> set[str]:
    """Packages that these lists in requirements/ name, spelt as in requirements.txt."""
    text = "\n".join((ROOT / "requirements" / f"{name}.in").read_text() for name in lists)
    return {name.lower().replace("_", "-") for name in re.findall(r"^[A-Za-z][\w-]*", text, re.M)}


def test_conda_and_pip_pin_the_same_packages():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert set(pip) == pins()
    assert len(pip) == len(pins())


def test_the_pinned_set_holds_every_package_that_the_lists_name():
    pinned = {pin.split("==")[0] for pin in pins()}
    for name in LISTS:
        assert named(name)
        assert named(name) <= pinned, f"requirements/{name}.in was changed; compile requirements.txt again"


def test_no_package_is_named_in_two_lists():
    assert sum(len(named(name)) for name in LISTS) == len(named(*LISTS))


@pytest.mark.parametrize("lists", [("run",), ("run", "search"), ("run", "export"), LISTS], ids="+".join)
def test_every_imported_package_is_named(lists: tuple[str, ...]):
    files = [path for where in IMPORTERS[lists[-1]] for path in sorted(ROOT.glob(where))]
    assert files
    ours = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    for path in files:
        foreign = imported(path) - sys.stdlib_module_names - ours
        missing = {DISTRIBUTIONS.get(name, name) for name in foreign} - named(*lists)
        assert not missing, f"{path.relative_to(ROOT)} imports {', '.join(missing)}: not in {' or '.join(lists)}.in"


def test_no_registry_address_is_written_down():
    for path in [ROOT / "requirements.txt", ROOT / "environment.yml", *(ROOT / "requirements").iterdir()]:
        assert not re.search(r"https?://|--(?:extra-)?index-url|--find-links", path.read_text()), path
