"""Training on shards: killed and resumed, in one process and two, evaluated on several data sets; and bad input."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch

import train as train_script
from datasets.shards.importing import import_shards
from datasets.shards.plan import ImportOptions
from processor.run_dir.history import read_history
from tests.helpers.runs import ROOT, SMALL, same_tensors, started


@pytest.fixture(scope="module")
def shards(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder with identities, and one without."""
    root = tmp_path_factory.mktemp("shards")
    reid = data_root / "CUHK-PEDES"
    records = json.loads((reid / "reid_raw.json").read_text())
    (root / "ham.json").write_text(
        json.dumps({r["file_path"]: r["captions"] for r in records if r["split"] == "train"})
    )
    for name, annotation in (("ids", reid / "reid_raw.json"), ("none", root / "ham.json")):
        import_shards(ImportOptions("auto", (annotation,), reid / "imgs", shard_size=6), root / name, 1)
    return [root / "ids", root / "none"]


@pytest.fixture(scope="module")
def flags(data_root: Path, shards: list[Path]) -> list[str]:
    line = [*SMALL, "--dataset_name", "Shards", "--root_dir", *shards, "--mix", "1", "0.5", "--loss_names", "sdm"]
    line += [
        "--precision",
        "fp32",
        "--batch_size",
        "12",
        "--val_sets",
        f"CUHK-PEDES={data_root}",
        f"RSTPReid={data_root}",
        "--log_period",
        "1",
    ]
    line += ["--num_steps", "8", "--eval_steps", "3", "--ema", "0.5", "--schedule_per", "step", "--warmup_steps", "2"]
    return [str(each) for each in line]


@pytest.fixture(scope="module")
def whole(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train_script.main([*flags, "--save_every", "1", "--run_dir", str(run_dir)])
    return run_dir


def test_best_is_chosen_by_the_mean_of_the_val_splits(whole: Path):
    log = (whole / "train_log.txt").read_text()
    assert "best.pth is chosen on the test split" not in log
    assert "val_dataset: val" in (whole / "configs.yaml").read_text()
    entries = [entry for entry in read_history(whole) if entry.val]
    assert [(entry.epoch, entry.step, entry.steps) for entry in entries] == [(1, 3, 5), (2, 1, 3), (2, 3, 3)]
    evaluations = [entry.val for entry in entries]
    for val in evaluations:
        assert val["R1"] == pytest.approx((val["CUHK-PEDES R1"] + val["RSTPReid R1"]) / 2)
    best = torch.load(whole / "best.pth", weights_only=True)["metrics"]
    assert best["R1"] == max(val["R1"] for val in evaluations)
    assert re.search(r"\| t2i  .*\n\| t2i CUHK-PEDES .*\n\| t2i RSTPReid ", log)


def test_what_is_saved_as_best_is_the_moving_average(whole: Path):
    last, best = (torch.load(whole / f"{name}.pth", weights_only=True) for name in ("last", "best"))
    assert last["progress"]["evaluated"] == 8 and last["epoch"] == 2
    raw, average = last["model"], last["ema"]
    assert not any(torch.equal(raw[name], average[name]) for name in average if "weight" in name)
    if best["metrics"] == last["progress"]["last"]:
        assert all(torch.equal(best["model"][name], average[name]) for name in average)


def test_rates_by_step(whole: Path):
    rates = [max(entry.lr.values()) for entry in read_history(whole) if entry.lr]
    assert len(rates) == 8 and rates[1] == rates[2] == max(rates) and 0 < rates[-1] < rates[-2]


def test_choosing_on_test_must_be_asked_for(flags: list[str], tmp_path: Path):
    run_dir = tmp_path / "run"
    train_script.main([*flags, "--val_dataset", "test", "--num_steps", "1", "--run_dir", str(run_dir)])
    assert "best.pth is chosen on the test split" in (run_dir / "train_log.txt").read_text()


def killed(line: list[str], after: str) -> None:
    """Run until a line is logged, then kill without warning."""
    with started(*line) as process:
        for text in process.stdout:
            if after in text:
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.stdout.read()
        assert process.wait() in (-signal.SIGKILL, 1)


def test_killed_and_resumed_within_an_epoch(whole: Path, flags: list[str], tmp_path: Path):
    cut = tmp_path / "run"
    killed(["train.py", *flags, "--num_workers", "1", "--save_every", "1", "--run_dir", str(cut)], "epoch 1 step 3/")
    resume = ["train.py", "--resume", "--resume_ckpt_file", str(cut)]
    killed(resume, "epoch 2 step 2/")
    train_script.main([*resume[1:], "--num_workers", "0"])
    for name in ("last.pth", "last.previous.pth", "best.pth"):
        same_tensors(whole / name, cut / name)
    assert (whole / "history.jsonl").read_text() == (cut / "history.jsonl").read_text()


def test_scores_of_words_are_set_back_with_the_run(flags: list[str], tmp_path: Path):
    """The whole run also sees every caption more than once, so that its masks come from scores."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    line = [*flags, "--loss_names", "nam", "--num_steps", "12", "--eval_steps", "12", "--save_every", "4"]
    train_script.main([*line, "--run_dir", str(whole)])
    killed(["train.py", *line, "--run_dir", str(cut)], "epoch 2 step 5/")
    train_script.main(["--resume", "--resume_ckpt_file", str(cut)])
    same_tensors(whole / "last.pth", cut / "last.pth")
    assert (whole / "history.jsonl").read_text() == (cut / "history.jsonl").read_text()
    assert (whole / "token_scores").read_bytes() == (cut / "token_scores").read_bytes()
    masked = [entry.train["nam_masked"] for entry in read_history(whole) if entry.train]
    assert all(0.05 < share < 0.4 for share in masked)


def test_from_one_process_to_two_and_back(whole: Path, flags: list[str], tmp_path: Path):
    """The same samples in the same batches: what differs is rounding, of which Adam (steps of 1e-5) makes more."""
    cut = tmp_path / "run"
    killed(["train.py", *flags, "--save_every", "1", "--run_dir", str(cut)], "epoch 1 step 3/")
    resume = ["--resume", "--resume_ckpt_file", str(cut)]
    torchrun = ["-m", "torch.distributed.run", "--run-path", "--start-method", "fork", "--nproc_per_node", "2"]
    killed([*torchrun, str(ROOT / "train.py"), *resume], "epoch 2 step 2/")
    train_script.main(resume)
    ours, theirs = (torch.load(folder / "last.pth", weights_only=True)["model"] for folder in (whole, cut))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_a_run_does_not_continue_on_other_shards(flags: list[str], shards: list[Path], tmp_path: Path, fails):
    moved, run_dir = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(shards[1], moved)
    line = [str(moved) if each == str(shards[1]) else each for each in flags]
    train_script.main([*line, "--num_steps", "1", "--run_dir", str(run_dir)])
    resume = ["--resume", "--resume_ckpt_file", str(run_dir), "--num_steps", "2"]
    about = moved / "index" / "index.json"
    about.write_text(about.read_text() + "\n")
    assert "the annotations of the training data have changed since" in fails("train", *resume)
    shutil.rmtree(moved)
    assert f"{moved}: is no folder of shards" in fails("train", *resume)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--mix", "1"], "--mix 1: expected a number for each folder of --root_dir (2), found 1"),
        (["--mix", "1", "0"], "--mix 0.0: expected a number above 0"),
        (["--sampler", "identity"], "--sampler identity: not with --dataset_name Shards"),
        (["--cache"], "--cache: not with --dataset_name Shards"),
        (["--noisy_rate", "0.2"], "--noisy_rate: not with --dataset_name Shards"),
        (["--identity_captions", "0.5"], "--identity_captions: not with --dataset_name Shards"),
        (["--val_sets", "CUHK-PEDES"], "--val_sets CUHK-PEDES: expected NAME=ROOT_DIR with a name of CUHK-PEDES"),
        (["--val_sets", "Market=x"], "--val_sets Market=x: expected NAME=ROOT_DIR"),
        (["--val_sets", "CUHK-PEDES=x"], "x/CUHK-PEDES: there is no such folder"),
        (["--dataset_name", "CUHK-PEDES"], "CUHK-PEDES takes one folder; only Shards takes several"),
    ],
)
def test_flags_that_do_not_fit(flags: list[str], more: list[str], message: str, tmp_path: Path, fails):
    assert message in fails("train", *flags, *more, "--run_dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_sets_and_splits_that_are_not_there(flags: list[str], shards: list[Path], data_root: Path, fails):
    alone = flags[: flags.index("--val_sets")]
    assert "evaluate on other data with --val_sets NAME=ROOT_DIR" in fails("train", *alone)
    icfg = f"ICFG-PEDES={data_root}"
    said = fails("train", *alone, "--val_sets", icfg)
    assert f"--val_sets {icfg}: --val_dataset val: ICFG-PEDES has no such split, only train and test" in said
    assert f"{data_root}: is no folder of shards" in fails("train", *flags, "--root_dir", data_root, "--mix", "1")


def test_shards_of_another_size_are_refused(flags: list[str], data_root: Path, tmp_path: Path, fails):
    reid = data_root / "CUHK-PEDES"
    options = ImportOptions("auto", (reid / "reid_raw.json",), reid / "imgs", resize=(32, 16))
    import_shards(options, tmp_path / "small", 1)
    said = fails("train", *flags, "--root_dir", tmp_path / "small", "--mix", "1", "--run_dir", tmp_path / "run")
    assert f"--root_dir {tmp_path / 'small'}: its images were resized to 32 16 on import, --img_size is 64 32;" in said


def test_a_shard_that_is_cut_off_under_a_run(flags: list[str], shards: list[Path], tmp_path: Path, fails, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(shards[0], copy)
    with (copy / "000000.tar").open("r+b") as file:
        file.truncate(3000)
    line = [*flags, "--root_dir", copy, "--mix", "1", "--run_dir", tmp_path / "run"]
    assert f"{copy / '000000.tar'}: has 3000 bytes, the index says" in fails("train", *line)
    monkeypatch.setattr("datasets.shards.index._check_size", lambda *_: None)  # it was whole when the run began
    assert re.search(r"000000.tar(, \S+)?: (cut off before the end of image \d|.*truncated)", fails("train", *line))
