"""Several processes: the same objective, checkpoints and tables as one; and what happens when one of them dies."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch

import test as test_script
import train as train_script
from tests.helpers.ranks import FLAGS, STEPS, SYSTEMS
from tests.helpers.runs import ROOT, made_once, python, started, table


@pytest.fixture(scope="module")
def one(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs in one process."""
    run_dir = tmp_path_factory.mktemp("one") / "run"
    train_script.main([*FLAGS, "--root_dir", str(data_root), "--run_dir", str(run_dir)])
    return run_dir


@pytest.fixture(scope="module")
def pair(one: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``tests.helpers.ranks`` leaves."""

    def make(folder: Path) -> None:
        done = python("-m", "tests.helpers.ranks", folder, data_root, one)
        assert done.returncode == 0, done.stdout + done.stderr

    return made_once(tmp_path_factory, "pair", make)


@pytest.mark.parametrize("system", SYSTEMS)
def test_losses_gradients_and_banks_equal_those_of_one_process(pair: Path, system: str):
    differences = json.loads((pair / "differences.json").read_text())
    for step in STEPS:
        for kind in ("scalars", "grads", "buffers"):
            found = differences[f"{system}/{step}/{kind}"]
            # a norm of the batch makes the gradient of the bias before it 0, except for rounding
            limit = {name: 1e-6 if name.endswith(".hidden.bias") else 1e-10 for name in found}
            assert {name: share for name, share in found.items() if share > limit[name]} == {}, f"{step} {kind}"
        assert differences[f"{system}/{step}/grads"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_scalars_and_banks_are_bit_identical_in_all_processes(pair: Path, system: str):
    first, second = (torch.load(pair / f"{number}.pth", weights_only=True) for number in (0, 1))
    for step in STEPS:
        ours, theirs = first[f"{system}/{step}"], second[f"{system}/{step}"]
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
        assert ours.keys() == theirs.keys() and ours


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def assert_close(one: Path, other: Path) -> None:
    """Two checkpoints differ by rounding only, which Adam (steps of 1e-5) makes more of."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def endings(pair: Path, name: str) -> list[str]:
    """How both processes came out of a run."""
    return [json.loads((pair / f"{number}.json").read_text())[name] for number in (0, 1)]


def test_a_signal_to_one_process_stops_all_after_the_same_step(pair: Path):
    assert endings(pair, "stopped") == ["Stopped: 143"] * 2
    progress = torch.load(pair / "stopped" / "last.pth", weights_only=True)["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 2)


def test_checkpoints_go_from_any_number_of_processes_to_any_other(pair: Path, one: Path, tmp_path: Path):
    assert endings(pair, "resumed") == endings(pair, "longer") == ["well"] * 2
    assert_close(one / "last.pth", pair / "two" / "last.pth")
    for name, source in (("stopped", pair / "stopped"), ("longer", one)):
        shutil.copytree(source, tmp_path / name)
    resume = ["--resume", "--resume_ckpt_file"]
    train_script.main([*resume, str(tmp_path / "stopped" / "last.pth")])
    assert_close(one / "last.pth", tmp_path / "stopped" / "last.pth")
    train_script.main([*resume, str(tmp_path / "longer" / "last.pth"), "--num_epoch", "3"])
    assert_close(tmp_path / "longer" / "last.pth", pair / "longer" / "last.pth")


def test_evaluation_in_shares_is_exact(pair: Path, capsys: pytest.CaptureFixture[str]):
    assert endings(pair, "tested") == ["well"] * 2
    shared = (pair / "longer" / "test_log.txt").read_text()
    config = ["--config_file", str(pair / "longer" / "configs.yaml"), "--checkpoint", str(pair / "longer" / "last.pth")]
    test_script.main([*config, "--i2t", "--test_batch_size", "7"])
    alone = capsys.readouterr().out
    for task in ("t2i", "i2t"):
        assert table(shared, task) == table(alone, task)
    assert "--rerank: works in one process" in endings(pair, "reranked")[0]


def test_one_process_writes_and_speaks(pair: Path):
    log = (pair / "two" / "train_log.txt").read_text()
    assert log.count("validation after epoch 2") == 1
    assert len(list((pair / "longer").glob("events.out.tfevents*"))) == 2  # one of ONE, one of the pair
    assert not list(pair.glob("*/.*"))


def test_an_error_ends_all_processes(pair: Path):
    first, second = endings(pair, "no data")
    assert "nowhere" in first and second == "SystemExit: 2"
    assert not (pair / "none").exists()
    assert "--batch_size 9 is not a multiple of the 2 processes" in endings(pair, "no share")[0]
    assert all("--php_attention batch" in end for end in endings(pair, "leak"))
    assert all(end.startswith("NotFinite") for end in endings(pair, "diverged"))


def test_torchrun_starts_a_killed_process_again_and_training_goes_on(one: Path, data_root: Path, tmp_path: Path):
    # forks of torchrun, which is a fork itself, instead of five interpreters that import torch
    torchrun = ["-m", "torch.distributed.run", "--run-path", "--start-method", "fork"]
    torchrun += ["--nproc_per_node", 2, "--max_restarts", 1]
    flags = [*FLAGS, "--root_dir", data_root, "--output_dir", tmp_path, "--save_every", "1", "--log_period", "1"]
    printed = ""
    with started(*torchrun, ROOT / "train.py", *flags, "--local-rank", "0") as launcher:
        for line in launcher.stdout:
            printed += line
            if "epoch 2 step 2/" in line and "resumed" not in printed:
                children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
                assert len(children) == 2
                os.kill(int(children[1]), signal.SIGKILL)
        code = launcher.wait()
    assert code == 0, printed
    assert re.search(r"resumed in epoch 2 after step [12]", printed), printed
    (run_dir,) = (tmp_path / "CUHK-PEDES").iterdir()
    assert_close(one / "last.pth", run_dir / "last.pth")
    log = (run_dir / "train_log.txt").read_text()
    assert log.count("validation after epoch 1") == 1
    assert table(log) == table((one / "train_log.txt").read_text())
