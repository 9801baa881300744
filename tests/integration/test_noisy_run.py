"""Training on noisy pairs with augmented captions: log, file, interruption, testing."""

from pathlib import Path

import numpy as np
import pytest

import test as test_script
import train as train_script
from tests.helpers.runs import SMALL, same_tensors, table
from utils import UserError
from utils.options import load_train_configs


def test_a_noisy_run_is_logged_and_resumes_bit_identically(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    index, runs = tmp_path / "index.npy", {name: str(tmp_path / name) for name in ("whole", "cut")}
    flags = [*SMALL, "--root_dir", str(data_root), "--loss_names", "itc", "--txt_aug", "--noisy_file", str(index)]
    flags += ["--precision", "fp32"]
    train_script.main([*flags, "--noisy_rate", "0.5", "--run_dir", runs["whole"]])
    assert (np.load(index) != np.arange(40)).sum() in range(10, 21)
    log = (tmp_path / "whole" / "train_log.txt").read_text()
    assert "of 40 training pairs (" in log and "--noisy_rate 0.5, --noisy_seed 1, written to" in log
    real = train_script.Trainer._finish_epoch

    def killed(trainer: object, signals: object) -> None:
        real(trainer, signals)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_script.Trainer, "_finish_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            train_script.main([*flags, "--run_dir", runs["cut"], "--num_workers", "1"])
    assert load_train_configs(tmp_path / "cut" / "configs.yaml").noisy_rate is None, "the file says it"
    train_script.main(["--resume", "--resume_ckpt_file", runs["cut"]])
    same_tensors(tmp_path / "whole" / "last.pth", tmp_path / "cut" / "last.pth")
    np.save(index, np.roll(np.load(index), 1))
    with pytest.raises(UserError, match=f"have changed since {runs['cut']} began, or the file of --noisy_file"):
        train_script.main(["--resume", "--resume_ckpt_file", runs["cut"]])
    index.unlink()
    capsys.readouterr()
    test_script.main(["--config_file", f"{runs['whole']}/configs.yaml"])
    assert len(table(capsys.readouterr().out)) == 5, "testing reads no training captions"
