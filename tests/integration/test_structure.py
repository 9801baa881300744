"""The shape of the project: imports point one way, packages say what they hold, files and functions stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT

LAYERS = (("utils",), ("datasets", "model", "solver"), ("processor",), ("analysis", "gallery", "exports"))
"""packages; each may import those of the layers before its own"""
PACKAGES = tuple(package for layer in LAYERS for package in layer)
SCRIPTS = ("train.py", "test.py", "search.py", "export.py")
CROSSING = {("model/feature_encoder.py", "datasets")}
"""the one file that imports a package of its own layer: it decodes images for ``load_run`` as evaluation does"""
COMMANDS = {"datasets/describe.py": {"model"}}
"""commands in a package, which may import what scripts may: nothing imports them, so no cycle goes through them"""
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
SOURCES = [*MODULES, *map(ROOT.joinpath, SCRIPTS)]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OURS = {*PACKAGES, *(script.removesuffix(".py") for script in SCRIPTS), "tests", "benchmarks"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere: also inside functions, and for type checking only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    """Top-level names that a file imports."""
    return {module.split(".")[0] for module in imported(path)}


@pytest.mark.parametrize(("layer", "package"), [(n, package) for n, layer in enumerate(LAYERS) for package in layer])
def test_imports_point_one_way(layer: int, package: str):
    allowed = {package, *(below for packages in LAYERS[:layer] for below in packages)}
    files = [path for path in SOURCES if path.is_relative_to(ROOT / package)]
    wrong = {name_of(path): found for path in files if (found := roots(path) & (OURS - allowed))}
    for name in COMMANDS.keys() & {name_of(path) for path in files}:
        assert wrong.pop(name) == COMMANDS[name]
    crossing = {(name, other) for name, found in wrong.items() for other in found}
    assert crossing == {(name, other) for name, other in CROSSING if name.startswith(f"{package}/")}
    assert files


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_imports_a_command(command: str):
    module = command.removesuffix(".py").replace("/", ".")
    assert not [name_of(path) for path in SOURCES if module in set(imported(path))]
    assert 'if __name__ == "__main__":' in (ROOT / command).read_text(encoding="utf-8")


def test_scripts_import_neither_each_other_nor_tests():
    wrong = {script: found for script in SCRIPTS if (found := roots(ROOT / script) & (OURS - {*PACKAGES}))}
    assert not wrong


def test_imports_are_found_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "datasets").mkdir()
    path = tmp_path / "datasets" / "x.py"
    path.write_text(
        "if TYPE_CHECKING:\n    from model.a import b\ndef f():\n    import solver.c as d\nfrom . import e\n"
    )
    assert set(imported(path)) == {"model.a", "model.a.b", "solver.c", "datasets", "datasets.e"}


def test_every_package_says_what_it_holds():
    folders = {path.parent for path in SOURCES if path.parent != ROOT}
    folders |= {parent for folder in folders for parent in folder.parents if ROOT in parent.parents}
    silent = []
    for folder in sorted(folders):
        init = folder / "__init__.py"
        text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) if init.exists() else None
        if not text or "TODO" in text:
            silent.append(name_of(folder))
    assert not silent


def test_modules_have_a_docstring():
    texts = {name_of(path): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert not [name for name, text in texts.items() if not text or "TODO" in text]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_are_small():
    long = {name_of(path): lines(path) for path in SOURCES if lines(path) > 300}
    long |= {script: lines(ROOT / script) for script in SCRIPTS if lines(ROOT / script) >= 120}
    assert not long


def test_functions_are_small():
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if node.end_lineno - first + 1 >= 50:
                    long[f"{name_of(path)}::{node.name}"] = node.end_lineno - first + 1
    assert not long


def test_utils_are_few():
    assert len(list((ROOT / "utils").glob("*.py"))) <= 10


def test_test_modules_share_helpers_and_do_not_import_each_other():
    wrong = {}
    for path in TESTS:
        found = {module for module in imported(path) if module.startswith("tests.")}
        if others := {module for module in found if not f"{module}.".startswith("tests.helpers.")}:
            wrong[name_of(path)] = others
    assert not wrong


def test_conftest_holds_fixtures_only():
    for node in ast.parse((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            assert any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list), node.name
        else:
            assert isinstance(node, ast.Import | ast.ImportFrom | ast.Expr), ast.unparse(node)


def test_tests_mirror_the_packages():
    """``tests/PACKAGE/.../test_NAME.py`` tests NAME.py there, or what is called NAME, the folder, as a whole."""
    wrong = []
    for path in TESTS:
        folder = path.relative_to(ROOT / "tests").parent
        if folder.parts and folder.parts[0] in PACKAGES:
            name = path.stem.removeprefix("test_")
            if not (ROOT / folder / f"{name}.py").exists() and not (folder.name == name and (ROOT / folder).is_dir()):
                wrong.append(name_of(path))
    assert not wrong


def used_names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def defined_names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)}


def test_every_parity_test_is_called_golden():
    """``bash run.sh check -k golden`` runs all that reads recorded cases."""
    unmarked = []
    for path in (path for path in TESTS if path.name.startswith("test_") and "golden" not in path.name):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        names = {a.name for node in imports if node.module == "tests.helpers.golden" for a in node.names}
        for _ in nodes:  # names that lead to recorded cases, however many steps away
            names |= {name for node in nodes if used_names(node) & names for name in defined_names(node)}
        unmarked += [f"{name_of(path)}::{name}" for name in names if name.startswith("test_") and "golden" not in name]
    assert not unmarked
