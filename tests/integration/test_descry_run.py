"""Our own recipe as users run it, on small real data."""

import shutil
from pathlib import Path

import pytest
import torch

import test as test_script
import train as train_script
from tests.helpers.runs import table

TINY = (
    "--pretrain_choice tiny --img_size 64 32 --num_workers 0 --device cpu --num_epoch 2 --batch_size 8 "
    "--dataset_name RSTPReid --log_period 1 --lr 1e-3"
)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def run_dir(request, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("descry") / "run"
    argv = ["--config_file", "configs/descry.yaml", *TINY.split(), "--root_dir", str(data_root)]
    train_script.main([*argv, "--precision", request.param, "--save_every", "2", "--run_dir", str(folder)])
    return folder


def test_it_trains_and_the_log_says_what_with(run_dir: Path, capsys):
    log = (run_dir / "train_log.txt").read_text()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in log.splitlines() if " step " in line]
    assert losses[-1] < losses[0]
    for name in ("sdm_bge", "sdm_tse", "itc_bge", "itc_tse"):
        assert name in log
    assert "division of the training pairs" not in log
    test_script.main(["--config_file", str(run_dir / "configs.yaml")])
    assert len(table(capsys.readouterr().out, "t2i")) == 5


def test_a_resumed_run_ends_the_same(run_dir: Path, tmp_path: Path):
    whole = torch.load(run_dir / "last.pth", weights_only=True)
    assert set(whole["optimizer"]) == {"Muon", "AdamW"}
    middle = tmp_path / "run"
    shutil.copytree(run_dir, middle)
    (middle / "last.previous.pth").rename(middle / "last.pth")
    train_script.main(["--resume", "--resume_ckpt_file", str(middle)])
    resumed = torch.load(middle / "last.pth", weights_only=True)["model"]
    assert all(torch.equal(whole["model"][key], resumed[key]) for key in whole["model"])


def test_a_checkpoint_of_another_optimiser_is_refused(run_dir: Path, tmp_path: Path, fails):
    other = tmp_path / "run"
    shutil.copytree(run_dir, other)
    content = torch.load(other / "last.pth", weights_only=True)
    content["optimizer"] = content["optimizer"]["AdamW"]
    torch.save(content, other / "last.pth")
    assert "--resume_ckpt_file" in fails("train", "--resume", "--resume_ckpt_file", other)


@pytest.mark.parametrize("losses", ["itc+memory", "sdm+instance_memory", "itc+itc1+memory_soft"])
def test_banks_hold_the_pooled_one_of_two_embeddings(data_root: Path, tmp_path: Path, losses: str):
    argv = ["--config_file", "configs/descry.yaml", *TINY.split(), "--root_dir", str(data_root), "--num_epoch", "1"]
    train_script.main([*argv, "--loss_names", losses, "--run_dir", str(tmp_path / "run")])
    state = torch.load(tmp_path / "run" / "last.pth", weights_only=True)["model"]
    name = losses.split("+")[-1]
    banks = [value for key, value in state.items() if key.startswith(f"heads.{name}.") and value.dim() == 2]
    assert banks and all(bank.shape[1] == 64 and bank.abs().sum(dim=1).min() > 0 for bank in banks)
