"""configs/ablation.sh: which commands it runs. A stand-in for python writes them down."""

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT


def commands(folder: Path, *args: object) -> tuple[list[str], subprocess.CompletedProcess]:
    """What the script calls python with, and how it ended; a run of the loss ``bad`` fails."""
    stand_in = folder / "bin" / "python"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text(f'#!/bin/sh\necho "$*" >>"{folder}/calls"\ncase "$*" in *"bad "*) exit 3 ;; esac\n')
    stand_in.chmod(0o755)
    (folder / "calls").unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "configs/ablation.sh"), *map(str, args)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    calls = folder / "calls"
    return calls.read_text().splitlines() if calls.exists() else [], done


def test_new_runs_start_old_ones_go_on_and_all_are_compared(tmp_path: Path):
    runs = tmp_path / "my runs"
    (runs / "itc").mkdir(parents=True)
    (runs / "itc" / "last.pth").touch()
    calls, done = commands(tmp_path, runs, "itc", "itc+id", "--", "--lr", "1e-4", "--name", "two words")
    assert done.returncode == 0, done.stderr
    assert calls == [
        f"train.py --resume --resume_ckpt_file {runs}/itc/last.pth",
        f"train.py --loss_names itc+id --run_dir {runs}/itc+id --lr 1e-4 --name two words",
        f"-m analysis.compare {runs}/itc {runs}/itc+id",
    ]


def test_a_run_that_fails_ends_it(tmp_path: Path):
    calls, done = commands(tmp_path, tmp_path, "bad", "itc")
    assert done.returncode == 3
    assert len(calls) == 1


def test_usage_is_said_in_one_line(tmp_path: Path):
    for args in ((), (tmp_path,), (tmp_path, "--", "--lr", "1")):
        calls, done = commands(tmp_path, *args)
        assert done.returncode == 2 and not calls
        assert done.stderr.splitlines() == ["usage: bash run.sh ablation DIR LOSSES... -- FLAGS..."]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_program(tmp_path: Path, number: int):
    """The stand-in takes a moment to save, and ends with a code of its own."""
    stand_in = tmp_path / "bin" / "python"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\ntrap "sleep 0.2; echo saved >{tmp_path}/saved; exit {128 + number}" {number}\n'
        f"echo >{tmp_path}/started\nwhile :; do sleep 0.05; done\n"
    )
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "configs/ablation.sh"), str(tmp_path), "itc", "id"]
    restore = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=restore) as process:
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert (tmp_path / "saved").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
