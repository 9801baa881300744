"""DGCMIA through the scripts: no labels, every subset of its losses, banks across interruptions and data sets."""

import itertools
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_script
import train as train_script
from datasets.mannequins.draw import draw
from datasets.mannequins.options import MannequinOptions
from model.losses import HEADS
from processor.signals import Stopped
from processor.trainer import Trainer

OWN = ("itc1", "cons", "memory_soft")
LOSSES = "itc+itc1+cons+memory_soft"
TINY = ["--pretrain_choice", "tiny", "--img_size", "32", "16", "--batch_size", "8", "--num_workers", "0"]
TINY += ["--device", "cpu", "--precision", "fp32", "--log_period", "1", "--lr", "1e-3", "--eval_period", "9"]


def drawn(folder: Path, train_ids: int) -> Path:
    """A data set of a few small figures for ``--dataset_name Custom``."""
    draw(folder, MannequinOptions(train_ids, 2, 3, "2", mannequin_height=32), workers=1)
    return folder


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("figures") / "Custom", 5)


def train(figures: Path, run: Path, *flags: str, losses: str = LOSSES) -> Path:
    argv = ["--dataset_name", "Custom", "--root_dir", str(figures), "--run_dir", str(run), *TINY]
    train_script.main([*argv, "--loss_names", losses, "--id_threshod", "0.5", *flags])
    return run


def logged_losses(run: Path) -> list[str]:
    lines = re.findall(r"epoch \d+ step \d+/\d+: .*?(?=, lr)", (run / "train_log.txt").read_text())
    assert lines
    return lines


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last.pth", weights_only=True)["model"]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_no_head_asks_for_a_label():
    assert not {"pids", "image_ids"} & {field for name in LOSSES.split("+") for field in HEADS[name].needs}


def test_labels_replaced_by_garbage_change_nothing(figures: Path, tmp_path: Path):
    garbage = tmp_path / "Custom"
    (garbage / "imgs").parent.mkdir()
    (garbage / "imgs").symlink_to(figures / "imgs")
    records = json.loads((figures / "reid_raw.json").read_text())
    identities = np.random.default_rng(0).permutation(1000)
    for record, identity in zip(records, identities, strict=False):
        if record["split"] == "train":
            record["id"] = int(identity) % 7
    (garbage / "reid_raw.json").write_text(json.dumps(records))
    honest = train(figures, tmp_path / "honest", "--num_epoch", "2")
    blind = train(garbage, tmp_path / "blind", "--num_epoch", "2")
    assert logged_losses(honest) == logged_losses(blind)
    assert_same(weights(honest), weights(blind))
    reports = [re.search(r"epoch 2, memory_soft: (.*)", (r / "train_log.txt").read_text())[1] for r in (honest, blind)]
    assert all(re.match(r"neighbours of 20 pairs: \d+ with 0, \d+ with 1, \d+ with 2, \d+ with 3", r) for r in reports)
    assert reports[0].split(";")[0] == reports[1].split(";")[0]
    assert reports[0] != reports[1], "the report alone knows labels"


SUBSETS = ["+".join(names) for size in (1, 2) for names in itertools.combinations(OWN, size)]


@pytest.mark.parametrize("losses", [*SUBSETS, "sdm+memory_soft", "sdm+itc1+cons", "id+mlm+cons"])
def test_any_subset_trains(figures: Path, tmp_path: Path, losses: str):
    run = train(figures, tmp_path / "run", "--num_epoch", "2", losses=losses)
    for name in losses.split("+"):
        assert f"{name}_loss" in logged_losses(run)[-1]
    assert ("heads.memory_soft.image_bank" in weights(run)) == ("memory_soft" in losses)


@pytest.mark.parametrize("stop_after", [1, 4], ids=["first epoch", "second epoch"])
def test_resumed_in_the_middle_of_an_epoch_it_ends_the_same(
    figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
):
    whole = train(figures, tmp_path / "whole", "--num_epoch", "3")
    step, done = Trainer.step, itertools.count(1)

    def interrupted(trainer: Trainer, batch: dict) -> None:
        step(trainer, batch)
        if next(done) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(Stopped):
            train(figures, tmp_path / "parts", "--num_epoch", "3")
    train_script.main(["--resume", "--resume_ckpt_file", str(tmp_path / "parts" / "last.pth")])
    assert weights(whole)["heads.memory_soft.image_bank"].any(dim=1).all()
    assert_same(weights(whole), weights(tmp_path / "parts"))
    assert logged_losses(whole) == logged_losses(tmp_path / "parts")


def test_a_checkpoint_is_tested_on_data_of_another_size(figures: Path, tmp_path: Path):
    run = train(figures, tmp_path / "run", "--num_epoch", "1")
    other = drawn(tmp_path / "other" / "Custom", 2)
    test_script.main(["--config_file", str(run / "configs.yaml"), "--root_dir", str(other)])
    text = (run / "test_log.txt").read_text()
    assert "t2i" in text
    assert "not used in testing: heads.memory_soft" in text


@pytest.mark.parametrize("config", ["dgcmia", "dgcmia_rstp"])
def test_configs_name_the_losses(config: str):
    options = train_script.read_flags(["--config_file", f"configs/{config}.yaml"])
    assert set(options.flat()["loss_names"].split("+")) == {"itc", *OWN} <= set(HEADS)


def test_the_published_command_is_understood():
    argv = ["--gpu_id", "0", "--batch_size", "64", "--dataset_name", "CUHK-PEDES", "--loss_names", LOSSES]
    flat = train_script.read_flags([*argv, "--num_epoch", "40", "--ndata", "68126"]).flat()
    published = {"thred1": 0.7, "thred2": 0.7, "id_threshod": 0.7, "soft_scale": 1.0, "alpha_mom": 0.9, "gpu_id": 0}
    assert {name: flat[name] for name in published} == published
