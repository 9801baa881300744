"""Small real data sets on disk, a trained run, and scripts that are expected to fail.

Imports that need torch stand in the fixtures: the process that only hands out tests to others reads this file, too.
"""

import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

# Before torch is imported: as in the processes that tests start, because other numbers of threads round differently.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one small data set in each published layout."""
    from datasets.mannequins.draw import draw
    from tests.helpers.runs import DRAWING

    root = tmp_path_factory.mktemp("data")
    for layout in ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid"):
        draw(root / layout, DRAWING, layout, workers=1)
    return root


@pytest.fixture(scope="session")
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of two epochs on the CUHK-PEDES layout."""
    import train as train_script
    from tests.helpers.runs import SMALL

    run_dir = tmp_path_factory.mktemp("logs") / "run"
    train_script.main([*SMALL, "--root_dir", str(data_root), "--run_dir", str(run_dir), "--loss_names", "itc+sdm"])
    return run_dir


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a script's main function, expect exit code 2, and return its one error message."""
    from utils.command import run_command

    def run(script: str, *args: object) -> str:
        main = import_module(script).main
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(main, [str(arg) for arg in args])
        assert ended.value.code == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1
        return errors[0]

    return run


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What is logged, from info on."""
    monkeypatch.setattr(logging.getLogger("descry"), "propagate", True)  # which the scripts switch off
    caplog.set_level(logging.INFO, "descry")
    return caplog
