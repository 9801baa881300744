"""One model for several data sets: trained with any system, resumed exactly, tested on each."""

import itertools
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import test as test_script
import train as train_script
from processor.run_dir.history import read_history
from processor.signals import Stopped
from processor.trainer import Trainer
from tests.helpers.runs import SMALL, assert_same, table

JOINT = ("--dataset_name", "CUHK-PEDES+RSTPReid")
SYSTEMS = {
    "IRRA": "sdm+mlm+id",
    "DGCMIA": "itc+memory_soft",
    "ECCL": "TAL+memory+instance_memory",
    "RDE": "TAL",
}
FLAGS = {
    "DGCMIA": ("--id_threshod", "-0.9"),
    "ECCL": ("--prompt_depth", "2", "--lora_alpha", "4"),
    "RDE": ("--select_ratio", "0.3"),
}


def train(data_root: Path, run: Path, *flags: str) -> Path:
    train_script.main([*SMALL, *JOINT, "--root_dir", str(data_root), "--run_dir", str(run), *flags])
    return run


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_trains_on_all_sets(
    system: str, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    epochs = 2 if system == "DGCMIA" else 1  # its memory only begins to matter in the second
    flags = ("--loss_names", SYSTEMS[system], *FLAGS.get(system, ()), "--batch_size", "20", "--num_epoch", str(epochs))
    run = train(data_root, tmp_path / "run", *flags)
    printed = capsys.readouterr().out
    for name in ("CUHK-PEDES", "RSTPReid"):
        assert len(re.findall(rf"\| t2i {name} +\|", printed)) == epochs
    weights = torch.load(run / "last.pth", weights_only=True)["model"]
    if system == "IRRA":
        (classifier,) = [value for name, value in weights.items() if "classifier" in name and value.ndim == 2]
        assert len(classifier) == 20, "ten identities of each set"
    if system == "DGCMIA":
        assert len(weights["heads.memory_soft.image_bank"]) == 80, "40 pairs of each set"


def test_the_mean_chooses_the_best_epoch_and_tests_are_of_each_set(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ("--loss_names", "itc", "--joint_sampling", "equal", "--precision", "fp32", "--num_epoch", "1")
    run = train(data_root, tmp_path / "run", *flags)
    printed = capsys.readouterr().out
    means, last = table(printed), read_history(run)[-1].val
    assert last["mAP"] == pytest.approx(means[3], abs=1e-3)
    test_script.main(
        ["--config_file", str(run / "configs.yaml"), "--checkpoint", str(run / "last.pth"), "--device", "cpu"]
    )
    tested = capsys.readouterr().out
    for name in ("CUHK-PEDES", "RSTPReid"):
        (block,) = re.findall(rf"{name} test, float32\n(.*?\| t2i .*?\n)", tested, re.S)
        assert table(block) == table(printed, f"t2i {name}")


def test_stopped_in_the_middle_and_resumed_it_ends_the_same(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flags = ("--loss_names", "itc+memory_soft", "--joint_sampling", "equal", "--batch_size", "20")
    whole = train(data_root, tmp_path / "whole", *flags)
    step, done = Trainer.step, itertools.count(1)

    def interrupted(trainer: Trainer, batch: dict) -> None:
        step(trainer, batch)
        if next(done) == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(Stopped):
            train(data_root, tmp_path / "parts", *flags)
    train_script.main(["--resume", "--resume_ckpt_file", str(tmp_path / "parts" / "last.pth")])
    one, other = (torch.load(run / "last.pth", weights_only=True)["model"] for run in (whole, tmp_path / "parts"))
    assert_same(one, other, "")


def test_a_run_does_not_continue_where_one_annotation_has_changed(
    data_root: Path, tmp_path: Path, fails: Callable[..., str]
):
    for name in JOINT[1].split("+"):
        shutil.copytree(data_root / name, tmp_path / name)
    run = train(tmp_path, tmp_path / "run", "--loss_names", "itc", "--num_steps", "1")
    annotation = tmp_path / "RSTPReid" / "data_captions.json"
    annotation.write_text(annotation.read_text() + "\n")
    message = fails("train", "--resume", "--resume_ckpt_file", run, "--num_steps", "2")
    assert "the annotations of the training data have changed since" in message


def test_what_cannot_be_joined(data_root: Path, fails: Callable[..., str]):
    flags = [*SMALL, "--root_dir", data_root, "--loss_names", "itc"]
    message = fails("train", *flags, "--dataset_name", "CUHK-PEDES+ICFG-PEDES", "--val_dataset", "val")
    assert "--val_dataset val: ICFG-PEDES has no such split" in message
    assert "--joint_sampling equal: needs several data sets" in fails("train", *flags, "--joint_sampling", "equal")
    message = fails("train", *flags, *JOINT, "--joint_sampling", "equal", "--sampler", "identity")
    assert "--joint_sampling equal: needs --sampler random" in message
    assert "UFine3C: there is no such folder" in fails("train", *flags, "--dataset_name", "CUHK-PEDES+UFine3C")
