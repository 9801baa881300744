"""Small real data sets on disk, and ways to run the scripts on them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import search as search_script
import test as test_script
import train as train_script
from datasets.mannequins.draw import MannequinOptions, draw
from utils.command import run_command

ROOT = Path(__file__).parent.parent
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


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one small data set in each published layout."""
    root = tmp_path_factory.mktemp("data")
    for layout in ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid"):
        draw(root / layout, DRAWING, layout, workers=1)
    return root


def python(script: str, *args: object, **kwargs: object) -> subprocess.CompletedProcess:
    """Run a script of the project as a user does, from its root."""
    command = [sys.executable, script, *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, **kwargs)


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
        main = {"train": train_script.main, "test": test_script.main, "search": search_script.main}[script]
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(main, [str(arg) for arg in args])
        assert ended.value.code == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1
        return errors[0]

    return run
