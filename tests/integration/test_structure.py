"""The shape of the project: imports point one way, and both environments pin the same packages."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MIDDLE = {"datasets", "model", "solver", "processor"}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(MIDDLE | {"utils"}))
def test_imports_point_one_way(package: str):
    allowed = {package, "utils"} if package in MIDDLE else {"utils"}
    project = MIDDLE | {"utils", "train", "test", "search", "tests"}
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        wrong = imported(path) & (project - allowed)
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


def test_scripts_do_not_import_each_other():
    for script in ("train.py", "test.py", "search.py"):
        assert not imported(ROOT / script) & {"train", "test", "search", "tests"}


def test_conda_and_pip_pin_the_same_packages():
    pinned = set(re.findall(r"^[a-z0-9].*==.*$", (ROOT / "requirements.txt").read_text(), re.M))
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert set(pip) == pinned
    assert pinned
