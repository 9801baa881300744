"""configs/ablation.sh: several losses, one table, and what a second call does."""

import os
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


def test_runs_of_several_losses_end_in_one_table_and_go_on_when_called_again(data_root: Path, tmp_path: Path):
    flags = [*SMALL, "--root_dir", data_root, "--num_epoch", 1, "--seed", 3]
    done = ablation(tmp_path / "all", "itc", "--", *flags)
    assert done.returncode == 0, done.stderr
    again = ablation(tmp_path / "all", "itc", "sdm", "--", *flags)
    assert again.returncode == 0, again.stderr
    table = again.stdout[again.stdout.rindex("| run") :]
    assert "| itc " in table and "| sdm " in table and "seed" not in table
    assert "resumed in epoch 2" in again.stdout
    assert len((tmp_path / "all" / "itc" / "history.jsonl").read_text().splitlines()) == 2


def test_usage_is_said_in_one_line(tmp_path: Path):
    done = ablation(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: bash run.sh ablation DIR LOSSES")
