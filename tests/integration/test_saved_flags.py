"""Flags of saved runs: what a fork wrote, what the command line overrides, and what testing does not take over."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import test as test_script
import train as train_script
from datasets.options import DataOptions
from processor.run_dir.layout import RunOptions
from utils import device


@pytest.fixture
def foreign(trained: Path, tmp_path: Path) -> Path:
    """The flags of a run as a fork might have saved them, beside the run's weights."""
    flags = yaml.safe_load((trained / "configs.yaml").read_text())
    (tmp_path / "configs.yaml").write_text(yaml.safe_dump({**flags, "dataset_name": "IIITD", "GPU_ID": 0}))
    (tmp_path / "best.pth").symlink_to(trained / "best.pth")
    return tmp_path / "configs.yaml"


def test_a_foreign_data_set_needs_a_name_on_the_command_line(foreign: Path, fails: Callable[..., str]):
    error = fails("test", "--config_file", foreign)
    assert "--dataset_name 'IIITD'" in error and "choose one of CUHK-PEDES" in error and "on the command line" in error


def test_what_the_command_line_overrides_is_not_refused(
    foreign: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
):
    test_script.main(["--config_file", str(foreign), "--dataset_name", "CUHK-PEDES", "--root_dir", str(data_root)])
    assert "t2i" in capsys.readouterr().out


@pytest.mark.parametrize("script", [train_script, test_script])
def test_flags_in_capitals_that_forks_saved_twice_are_understood(script: object, tmp_path: Path):
    config = tmp_path / "configs.yaml"
    config.write_text("GPU_ID: 3\nROOT_DIR: /somewhere\nroot_dir: /here\n")
    options = script.read_flags(["--config_file", str(config)])
    group = device.DeviceOptions if script is train_script else device.TestDeviceOptions
    assert options.get(group).gpu_id == 3
    assert options.get(DataOptions).root_dir == Path("/here")


def test_testing_computes_in_float32_whatever_the_run_was_trained_in(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = yaml.safe_load((trained / "configs.yaml").read_text())
    (tmp_path / "configs.yaml").write_text(yaml.safe_dump({**flags, "precision": "bf16"}))
    (tmp_path / "best.pth").symlink_to(trained / "best.pth")
    for more, dtype in ((), "float32"), (("--precision", "bf16"), "bfloat16"):
        test_script.main(["--config_file", str(tmp_path / "configs.yaml"), *more])
        out = capsys.readouterr().out
        assert f"test, cpu, {dtype}\n" in out


def test_every_table_of_training_names_the_precision(trained: Path):
    log = (trained / "train_log.txt").read_text()
    dtype = "bfloat16" if "device cpu, bfloat16" in log else "float32"
    assert f"validation after epoch 1, {dtype}\n" in log
    assert f"t2i on test, {dtype}\n" in log


def test_resuming_refuses_a_second_source_of_flags(trained: Path, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text("lr: 1\n")
    resumed = ["--resume", "--resume_ckpt_file", str(trained)]
    with pytest.raises(ValueError, match=r"other.yaml: cannot be combined with --resume"):
        train_script.read_flags([*resumed, "--config_file", str(other)])
    own = train_script.read_flags([*resumed, "--config_file", str(trained / "configs.yaml")])
    assert own.get(RunOptions).resume
