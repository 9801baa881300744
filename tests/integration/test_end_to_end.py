"""train.py and test.py as users run them, on small real data."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

import test as test_script
import train as train_script
from tests.helpers.runs import SMALL, fresh_python, same_tensors, started, table
from utils.options import load_train_configs


def test_published_irra_commands(data_root: Path, tmp_path: Path):
    published = "--name irra --img_aug --batch_size 64 --MLM --loss_names sdm+mlm+id --dataset_name CUHK-PEDES"
    small = ["--pretrain_choice", "tiny", "--img_size", "64,32", "--num_epoch", "1", "--num_workers", "1"]
    done = fresh_python("train.py", *published.split(), "--root_dir", data_root, *small, "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    (run_dir,) = (tmp_path / "CUHK-PEDES").iterdir()
    assert run_dir.name.endswith("_irra")
    assert {"configs.yaml", "best.pth", "last.pth", "train_log.txt"} <= {path.name for path in run_dir.iterdir()}
    assert list(run_dir.glob("events.out.tfevents*"))
    assert "best.pth is chosen on the test split" in done.stderr
    tested = fresh_python("test.py", "--config_file", run_dir / "configs.yaml", "--i2t", "--precision", "auto")
    assert tested.returncode == 0, tested.stderr
    assert re.search(r"\| task \| +R1 +\| +R5 +\| +R10 +\| +mAP +\| +mINP +\|", tested.stdout)
    assert re.search(r"\| t2i  \| +\d+\.\d{3} ", tested.stdout)
    assert table(tested.stdout) == table(done.stdout)
    assert table(tested.stdout, "i2t") != table(tested.stdout)


def test_flags_of_a_run_are_saved_and_read_back(trained: Path):
    flags = load_train_configs(trained / "configs.yaml")
    assert flags.loss_names == "itc+sdm"
    assert flags.img_size == [64, 32]
    assert flags.lr == 1e-5


def test_cross_domain_and_another_checkpoint(trained: Path, data_root: Path, capsys: pytest.CaptureFixture[str]):
    config = ["--config_file", str(trained / "configs.yaml")]
    test_script.main([*config, "--dataset_name", "RSTPReid", "--checkpoint", str(trained / "last.pth")])
    printed = capsys.readouterr().out
    assert "last.pth on RSTPReid test" in printed
    assert len(table(printed)) == 5


def published_names(key: str) -> str:
    """Our name of a tower's weight to the one IRRA saved it under."""
    return re.sub(r"\.in_proj\.", ".in_proj_", re.sub(r"^clip\.(text\.)?", "base_model.", key))


@pytest.mark.parametrize("wrap", ["module.", "", "suffix"])
def test_run_directory_of_the_published_program(trained: Path, tmp_path: Path, wrap: str, capsys):
    ours = torch.load(trained / "best.pth", weights_only=True)["model"]
    weights = {published_names(key): value.half() for key, value in ours.items() if key.startswith("clip.")}
    if wrap == "suffix":
        weights = {key.removeprefix("base_model."): value for key, value in weights.items()}
    else:
        weights = {wrap + key: value for key, value in weights.items()}
    weights[("" if wrap == "suffix" else wrap) + "classifier.weight"] = torch.zeros(7, 64).half()
    torch.save({"model": weights, "optimizer": {}, "epoch": 3, "scheduler": {}}, tmp_path / "best.pth")
    flags = load_train_configs(trained / "configs.yaml")
    text = yaml.safe_dump({"dataset_name": "CUHK-PEDES", "root_dir": flags.root_dir, "num_workers": 0, "novel_key": 1})
    text += "img_size: !!python/tuple\n- 64\n- 32\nmilestones: !!python/tuple\n- 20\n- 50\n"
    (tmp_path / "configs.yaml").write_text(text)
    test_script.main(["--config_file", str(trained / "configs.yaml")])
    expected = table(capsys.readouterr().out)
    test_script.main(["--config_file", str(tmp_path / "configs.yaml")])
    printed = capsys.readouterr()
    assert table(printed.out) == pytest.approx(expected, abs=2.0)
    assert "novel_key" in printed.err
    assert "heads.id" in printed.out


def test_interrupted_run_continues_bit_identically(data_root: Path, tmp_path: Path):
    flags = [*SMALL, "--root_dir", str(data_root), "--img_aug", "--loss_names", "sdm+id+mlm+itm", "--log_period", "1"]
    flags += ["--num_epoch", "3", "--batch_size", "4", "--precision", "fp32"]
    train_script.main([*flags, "--run_dir", str(tmp_path / "whole")])
    with started("train.py", *flags, "--run_dir", tmp_path / "cut", "--num_workers", "2") as process:
        for line in process.stdout:
            if "epoch 2 step 3/" in line:
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        assert process.wait() == 128 + signal.SIGINT
    last = torch.load(tmp_path / "cut" / "last.pth", weights_only=True)
    assert last["progress"]["epoch"] == 2 and last["progress"]["step"] >= 3
    train_script.main(["--resume", "--resume_ckpt_file", str(tmp_path / "cut" / "last.pth")])
    for name in ("last.pth", "best.pth"):
        same_tensors(tmp_path / "whole" / name, tmp_path / "cut" / name)
    history = [(tmp_path / run / "history.jsonl").read_bytes() for run in ("whole", "cut")]
    assert history[0] == history[1] and history[0].count(b'"val"') == 3
    assert (tmp_path / "cut" / "curves.png").stat().st_size > 10_000


def test_workers_and_their_number_change_nothing(data_root: Path, tmp_path: Path):
    flags = [*SMALL, "--root_dir", str(data_root), "--img_aug", "--loss_names", "sdm+mlm", "--num_epoch", "1"]
    train_script.main([*flags, "--run_dir", str(tmp_path / "none"), "--sampler", "identity", "--num_instance", "2"])
    more = ["--num_workers", "2", "--cache", "--cache_dir", str(tmp_path / "cache")]
    train_script.main(
        [*flags, "--run_dir", str(tmp_path / "two"), "--sampler", "identity", "--num_instance", "2", *more]
    )
    same_tensors(tmp_path / "none" / "last.pth", tmp_path / "two" / "last.pth")


def test_every_loss_trains_alone_and_in_any_order(data_root: Path, tmp_path: Path):
    from model.losses import HEADS

    for number, names in enumerate([*HEADS, "mlm+cmpm+itc", "id+mlm+sdm"]):
        flags = [*SMALL, "--root_dir", str(data_root), "--num_epoch", "1", "--batch_size", "20"]
        train_script.main([*flags, "--loss_names", names, "--run_dir", str(tmp_path / str(number))])
        assert (tmp_path / str(number) / "best.pth").exists(), names


def test_clean_captions_differ_from_masked_ones(data_root: Path, tmp_path: Path):
    flags = [*SMALL, "--root_dir", str(data_root), "--num_epoch", "1", "--loss_names", "sdm+mlm"]
    train_script.main([*flags, "--run_dir", str(tmp_path / "published")])
    train_script.main([*flags, "--run_dir", str(tmp_path / "clean"), "--clean_captions"])
    weights = [torch.load(tmp_path / n / "last.pth", weights_only=True)["model"] for n in ("published", "clean")]
    assert not torch.equal(weights[0]["clip.visual.proj"], weights[1]["clip.visual.proj"])


@pytest.mark.parametrize(("first_epoch", "left"), [("1e-40", "last good state"), ("1", "no checkpoint had been")])
def test_not_a_number_stops_training_and_keeps_the_last_good_state(
    data_root: Path, tmp_path: Path, fails, first_epoch: str, left: str
):
    flags = [*SMALL, "--root_dir", data_root, "--loss_names", "sdm", "--run_dir", tmp_path / "run", "--lr", "1e30"]
    schedule = ["--num_epoch", "40", "--warmup_epochs", "1", "--warmup_factor", first_epoch, "--optimizer", "SGD"]
    message = fails("train", *flags, *schedule)
    assert re.search(r"epoch \d+, step \d+: .*not finite", message)
    assert left in message
    last = tmp_path / "run" / "last.pth"
    assert last.exists() == (left == "last good state")
    if last.exists():
        assert str(last) in message
        model = torch.load(last, weights_only=True)["model"]
        assert model and all(torch.isfinite(value).all() for value in model.values())


@pytest.mark.parametrize(("script", "flag"), [("train", "loss_names"), ("test", "rerank"), ("search", "gallery")])
def test_help_fits_80_columns_and_loads_nothing_heavy(script: str, flag: str):
    done = fresh_python("-X", "importtime", f"{script}.py", "--help")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert f"--{flag}" in done.stdout
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "torch" in loaded, "else the list below would say nothing"
    assert not loaded & {"matplotlib", "flask", "faiss", "tensorboard", "open_clip", "transformers", "pandas"}


def test_custom_folder(data_root: Path, tmp_path: Path):
    folder = tmp_path / "mine"
    shutil.copytree(data_root / "RSTPReid", folder)
    (folder / "mannequins.json").unlink()
    (folder / "data_captions.json").rename(folder / "my.json")
    flags = [*SMALL, "--dataset_name", "Custom", "--root_dir", str(folder), "--num_epoch", "1"]
    train_script.main([*flags, "--loss_names", "itc", "--val_dataset", "val", "--run_dir", str(tmp_path / "run")])
    assert (tmp_path / "run" / "best.pth").exists()
