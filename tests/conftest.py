"""Small real data sets on disk, a trained run, and scripts that are expected to fail."""

from collections.abc import Callable
from pathlib import Path

import pytest

import export as export_script
import search as search_script
import test as test_script
import train as train_script
from datasets.mannequins.draw import draw
from tests.helpers.runs import DRAWING, SMALL
from utils.command import run_command


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one small data set in each published layout."""
    root = tmp_path_factory.mktemp("data")
    for layout in ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid"):
        draw(root / layout, DRAWING, layout, workers=1)
    return root


@pytest.fixture(scope="session")
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of two epochs on the CUHK-PEDES layout."""
    run_dir = tmp_path_factory.mktemp("logs") / "run"
    train_script.main([*SMALL, "--root_dir", str(data_root), "--run_dir", str(run_dir), "--loss_names", "itc+sdm"])
    return run_dir


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a script's main function, expect exit code 2, and return its one error message."""

    def run(script: str, *args: object) -> str:
        scripts = {"train": train_script, "test": test_script, "search": search_script, "export": export_script}
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(scripts[script].main, [str(arg) for arg in args])
        assert ended.value.code == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1
        return errors[0]

    return run
