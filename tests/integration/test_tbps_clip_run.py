"""TBPS-CLIP as users run it, on small real data: its recipes, a published run, and IRRA on top of it."""

import json
import shutil
from pathlib import Path

import easydict
import pytest
import torch
import yaml

import test as test_script
import train as train_script
from model import load_run
from tests.helpers.runs import table
from utils.options import load_train_configs

TINY = (
    "--pretrain_choice tiny --img_size 64 32 --num_workers 0 --device cpu --num_epoch 2 --batch_size 8 "
    "--dataset_name RSTPReid --log_period 1"
)


def trained(folder: Path, data_root: Path, recipe: str, *more: str) -> Path:
    argv = ["--config_file", f"configs/{recipe}.yaml", *TINY.split(), "--root_dir", str(data_root)]
    train_script.main([*argv, "--run_dir", str(folder), *more])
    return folder


@pytest.fixture(scope="module")
def run_dir(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the full recipe."""
    return trained(tmp_path_factory.mktemp("tbps") / "run", data_root, "tbps_clip", "--precision", "fp32")


def printed_by(config: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    test_script.main(["--config_file", str(config), *more])
    return capsys.readouterr().out


def test_every_loss_is_logged_and_the_missing_translations_are_said_once(run_dir: Path):
    log = (run_dir / "train_log.txt").read_text()
    assert log.count("training captions have one (captions_bt)") == 1
    for name in ("nitc_loss", "ritc_loss", "citc_loss", "ss_loss"):
        assert name in log
    rates = [line.split("lr ")[1].split(",")[0] for line in log.splitlines() if " step " in line and "lr " in line]
    assert len(set(rates)) > 3, "the learning rate changes within an epoch"


def test_testing_sees_what_training_said(run_dir: Path, capsys):
    encoder = load_run(run_dir)
    assert encoder.inputs.resize_filter == "bicubic" and encoder.inputs.pixel_mean == (0.485, 0.456, 0.406)
    assert encoder.inputs.tokenizer.encode("A Man!") == encoder.inputs.tokenizer.encode("a man ")
    ours = table(printed_by(run_dir / "configs.yaml", capsys), "t2i")
    assert ours == table(printed_by(run_dir / "configs.yaml", capsys), "t2i")
    for flags in (["--pixel_statistics", "clip"], ["--eval_filter", "bilinear"]):
        printed_by(run_dir / "configs.yaml", capsys, *flags)  # runs, with other numbers


def test_a_resumed_run_ends_the_same(run_dir: Path, data_root: Path, tmp_path: Path):
    whole = torch.load(run_dir / "last.pth", weights_only=True)["model"]
    trained(tmp_path / "a", data_root, "tbps_clip", "--precision", "fp32", "--save_every", "2")
    middle = tmp_path / "b"
    shutil.copytree(tmp_path / "a", middle)
    shutil.copy(tmp_path / "a" / "last.previous.pth", middle / "last.pth")
    (middle / "last.previous.pth").unlink()
    train_script.main(["--resume", "--resume_ckpt_file", str(middle)])
    resumed = torch.load(middle / "last.pth", weights_only=True)["model"]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def published_name(key: str) -> str:
    for ours, theirs in (
        ("clip.text.", "encode_text."),
        ("clip.visual.", "visual."),
        ("heads.ss.mlp.", "simclr_mlp."),
        ("parts.logit_scale.log_scale", "logit_scale"),
    ):
        key = key.replace(ours, theirs)
    return key.replace(".in_proj.", ".in_proj_")


@pytest.fixture(scope="module")
def published(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the published program would have left of this run."""
    folder = tmp_path_factory.mktemp("published")
    recorded = Path("tests/golden/tbps_clip/configs.yaml").read_text()
    config = easydict.EasyDict(yaml.safe_load(recorded))
    config.experiment.input_resolution = [64, 32]
    (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    state = torch.load(run_dir / "best.pth", weights_only=True)["model"]
    state = {published_name(key): value for key, value in state.items()}
    torch.save({"model": state, "optimizer": {}, "config": config}, folder / "checkpoint_best.pth")
    return folder


def test_a_published_run(run_dir: Path, published: Path, data_root: Path, capsys):
    ours = table(printed_by(run_dir / "configs.yaml", capsys), "t2i")
    weights = ["--checkpoint", str(published / "checkpoint_best.pth")]
    data = ["--dataset_name", "RSTPReid", "--root_dir", str(data_root), "--pretrain_choice", "tiny"]
    assert table(printed_by(published / "config.yaml", capsys, *weights, *data), "t2i") == ours


def test_irra_starts_from_it(published: Path, data_root: Path, tmp_path: Path):
    start = ["--finetune", str(published / "checkpoint_best.pth"), "--cmt_depth", "1", "--num_epoch", "1"]
    folder = trained(tmp_path / "irra", data_root, "irra", *start)
    assert "used clip.text" in (folder / "train_log.txt").read_text()
    assert load_train_configs(folder / "configs.yaml").loss_names == "sdm+mlm+id"


def test_the_simplified_recipe_and_a_plug_into_another(data_root: Path, tmp_path: Path):
    simple = trained(tmp_path / "simple", data_root, "tbps_clip_simple", "--num_epoch", "1")
    assert "citc_loss" not in (simple / "train_log.txt").read_text()
    losses = ["--loss_names", "sdm+mlm+id+ritc+citc", "--augment", "pool", "--cmt_depth", "1", "--num_epoch", "1"]
    plugged = trained(tmp_path / "plugged", data_root, "irra", *losses)
    assert "ritc_loss" in (plugged / "train_log.txt").read_text()


def test_a_view_that_no_loss_reads(data_root: Path, tmp_path: Path):
    from utils import UserError

    with pytest.raises(UserError, match="--augment images_ss1=irra: none of --loss_names reads images_ss1"):
        trained(tmp_path / "x", data_root, "tbps_clip_simple", "--augment", "pool", "images_ss1=irra")
    assert not (tmp_path / "x").exists()
