"""Several seeds in one command, and run.json."""

import hashlib
import json
import math
import statistics
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import train as train_script
from analysis import compare
from processor.metrics import METRICS
from processor.run_dir import record
from processor.run_dir.seeds import mean_and_std
from tests.helpers.runs import ROOT, SMALL, same_tensors
from utils.options import load_train_configs


@pytest.fixture(scope="module")
def seeds(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run over two seeds that is interrupted in the second one and resumed."""
    run_dir = tmp_path_factory.mktemp("seeds") / "run"
    flags = [*SMALL, "--root_dir", str(data_root), "--loss_names", "itc", "--num_epoch", "2", "--lr", "1e-3"]
    trained, real = [], train_script.Trainer.run

    def interrupted(trainer: object) -> object:
        trained.append((trainer.run_dir.path.name, trainer.progress.epoch))
        if len(trained) == 2:
            trainer.schedule.num_epoch = 1
            real(trainer)
            raise KeyboardInterrupt
        return real(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_script.Trainer, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_script.main([*flags, "--run_dir", str(run_dir), "--seeds", "3", "5"])
        train_script.main(["--resume", "--resume_ckpt_file", str(run_dir)])
    return SimpleNamespace(run_dir=run_dir, flags=flags, trained=trained)


def test_finished_seeds_are_kept_and_the_interrupted_one_goes_on(seeds: SimpleNamespace):
    assert seeds.trained == [("seed_3", 1), ("seed_5", 1), ("seed_5", 2)]


def test_each_seed_is_the_run_with_that_seed(seeds: SimpleNamespace, tmp_path: Path):
    train_script.main([*seeds.flags, "--run_dir", str(tmp_path / "alone"), "--seed", "5"])
    for name in ("last.pth", "best.pth"):
        same_tensors(tmp_path / "alone" / name, seeds.run_dir / "seed_5" / name)
    flags = load_train_configs(seeds.run_dir / "seed_5" / "configs.yaml")
    assert (flags.seed, flags.seeds, flags.resume) == (5, [], False)
    weights = [torch.load(seeds.run_dir / f"seed_{n}" / "last.pth")["model"]["clip.visual.proj"] for n in (3, 5)]
    assert not torch.equal(*weights)


def test_mean_and_spread(seeds: SimpleNamespace):
    summary = json.loads((seeds.run_dir / "seeds.json").read_text())
    table = (seeds.run_dir / "seeds.txt").read_text()
    for which in ("best", "last"):
        results = [json.loads((seeds.run_dir / f"seed_{n}" / "run.json").read_text())[which] for n in (3, 5)]
        assert [summary["seeds"][n][which] for n in ("3", "5")] == results
        for name in METRICS:
            one, other = (result[name] for result in results)
            assert summary["mean"][which][name] == pytest.approx((one + other) / 2)
            assert summary["std"][which][name] == pytest.approx(abs(one - other) / math.sqrt(2))
        assert f"| {which}, seed 5 (epoch {results[1]['epoch']})" in table
        assert f"{summary['mean'][which]['mAP']:.3f}" in table
    assert "last, seed 3 (epoch 2)" in table


def test_spread_is_that_of_a_sample():
    results = {
        seed: {which: dict.fromkeys(METRICS, value) for which in ("best", "last")}
        for seed, value in ((1, 1.0), (2, 2.0), (3, 6.0))
    }
    summary = mean_and_std(results)
    assert summary["mean"]["best"]["R1"] == 3.0
    assert summary["std"]["last"]["mAP"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2)) == statistics.stdev([1, 2, 6])


@pytest.mark.parametrize("given", ["1", "1 1", "2 -1"])
def test_seeds_that_make_no_spread(given: str, fails):
    assert f"--seeds {given}: expected two or more different numbers" in fails("train", "--seeds", *given.split())


def test_a_directory_with_seeds_is_not_overwritten(seeds: SimpleNamespace, fails):
    message = fails("train", *seeds.flags, "--run_dir", seeds.run_dir, "--seeds", "3", "5")
    assert f"holds a run already; continue it with --resume --resume_ckpt_file {seeds.run_dir}" in message


def test_run_json(trained: Path, data_root: Path):
    content = json.loads((trained / "run.json").read_text())
    annotation = (data_root / "CUHK-PEDES" / "reid_raw.json").read_bytes()
    assert content["annotation_sha256"] == hashlib.sha256(annotation).hexdigest()
    assert content["weights_sha256"] is None, "random weights"
    assert content["libraries"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (content["device"], content["processes"], content["seed"], content["losses"]) == ("cpu", 1, 1, "itc+sdm")
    assert content["flags"] == dict(load_train_configs(trained / "configs.yaml"))
    assert content["precision"] in ("float32", "bfloat16")
    assert content["last"]["epoch"] == 2 and content["best"]["R1"] >= content["last"]["R1"]
    assert datetime.fromisoformat(content["started"]) <= datetime.fromisoformat(content["finished"])
    assert 0 < content["seconds"] < 600 and content["peak_memory_bytes"] > 1e8
    saved = torch.load(trained / "best.pth")
    assert content["best"] == saved["metrics"] and saved["epoch"] == content["best"]["epoch"]


def test_the_final_table_has_best_and_last(trained: Path):
    log = (trained / "train_log.txt").read_text()
    content = json.loads((trained / "run.json").read_text())
    final = log[log.index("t2i on test") :]
    for name in ("best", "last"):
        assert f"| {name} (epoch {content[name]['epoch']}) | {content[name]['R1']:.3f}" in final


def test_weights_are_hashed(trained: Path, data_root: Path, tmp_path: Path):
    flags = [*SMALL, "--root_dir", str(data_root), "--loss_names", "itc", "--num_epoch", "1"]
    train_script.main([*flags, "--run_dir", str(tmp_path / "run"), "--finetune", str(trained / "best.pth")])
    digest = hashlib.sha256((trained / "best.pth").read_bytes()).hexdigest()
    first = json.loads((tmp_path / "run" / "run.json").read_text())
    assert first["weights_sha256"] == digest
    train_script.main(["--resume", "--resume_ckpt_file", str(tmp_path / "run"), "--num_epoch", "2"])
    second = json.loads((tmp_path / "run" / "run.json").read_text())
    assert second["weights_sha256"] == digest and second["started"] == first["started"]
    assert second["seconds"] > first["seconds"] and second["last"]["epoch"] == 2


def test_code_version_is_that_of_a_checkout_of_this_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commit, _ = record.code_version()
    if (ROOT / ".git").exists():
        assert len(commit) == 40
    monkeypatch.setattr(record, "_ROOT", tmp_path)
    assert record.code_version() == (None, False), "no checkout"
    git = lambda *args: record._git("-c", "user.name=a", "-c", "user.email=a@b.c", *args)  # noqa: E731
    assert git("init") is not None
    (tmp_path / "other.py").write_text("")
    assert git("add", "other.py") is not None and git("commit", "-m", "x") is not None
    assert record.code_version() == (None, False), "a checkout of something else"
    (tmp_path / "train.py").write_text("1")
    assert git("add", "train.py") is not None and git("commit", "-m", "y") is not None
    assert record.code_version() == (git("rev-parse", "HEAD"), False)
    (tmp_path / "train.py").write_text("2")
    assert record.code_version() == (git("rev-parse", "HEAD"), True)


def test_a_lost_record_does_not_stop_a_resumed_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    for text in ("", "[1]", "{", "\x00"):
        (tmp_path / "run.json").write_text(text)
        assert record.read_record(tmp_path / "run.json") == {}
    (tmp_path / "run.json").unlink()
    facts = {"weights_sha256": None, "version": "a", "modified": False, "device": "cpu"}
    for _ in range(2):  # also when it is resumed once more
        record.RunRecord(tmp_path, facts, resumed=True).write(best={}, last={})
    assert caplog.text.count("when the run began and how long it took until now is lost") == 5
    assert caplog.text.count("(No such file or directory)") == 1
    (tmp_path / "configs.yaml").write_text("loss_names: itc\n")
    compare.main([str(tmp_path)])
    said = capsys.readouterr()
    assert "itc" in said.out and "so time and memory are of the rest only" in said.err
