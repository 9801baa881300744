"""configs/ablation.sh: several losses, one table, and what a second call does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, SMALL


def ablation(*args: object) -> subprocess.CompletedProcess:
    """Run the script with this Python first in the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    command = ["bash", "configs/ablation.sh", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)


def test_a_run_that_is_there_goes_on_and_all_end_in_one_table(trained: Path, data_root: Path, tmp_path: Path):
    shutil.copytree(trained, tmp_path / "all" / "itc+sdm")
    flags = [*SMALL, "--root_dir", data_root, "--num_epoch", 1, "--log_period", 7]
    done = ablation(tmp_path / "all", "itc+sdm", "itc", "--", *flags)
    assert done.returncode == 0, done.stderr
    assert "resumed in epoch 3" in done.stdout
    table = done.stdout[done.stdout.rindex("| run") :]
    assert [line.split("|")[1].strip() for line in table.splitlines() if "last)" in line] == ["itc+sdm", "itc"]
    assert "num_epoch" in table and "log_period" in table and "seed" not in table
    history = (tmp_path / "all" / "itc+sdm" / "history.jsonl").read_bytes()
    assert history == (trained / "history.jsonl").read_bytes()


def test_usage_is_said_in_one_line(tmp_path: Path):
    done = ablation(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: bash run.sh ablation DIR LOSSES")
