"""ICLF and reranking as users run them, on small real data."""

import re
from pathlib import Path

import pytest
import torch

import test as test_script
import train as train_script
from tests.helpers.runs import SMALL, python, table


@pytest.fixture(scope="module")
def run_dir(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the published training command leaves behind."""
    published = "--name iclf --img_aug --batch_size 64 --MLM --loss_names itc+mlm+itm+id --dataset_name RSTPReid"
    small = ["--pretrain_choice", "tiny", "--img_size", "64,32", "--num_epoch", "1", "--num_workers", "0"]
    folder = tmp_path_factory.mktemp("iclf") / "run"
    done = python("train.py", *published.split(), *small, "--root_dir", data_root, "--run_dir", folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"itm_loss \d.*itm_acc \d.*itm_temp 0\.07", done.stdout)
    return folder


def test_rerank_prints_both_tables(run_dir: Path, capsys):
    test_script.main(["--config_file", str(run_dir / "configs.yaml")])
    plain = table(capsys.readouterr().out)
    test_script.main(["--config_file", str(run_dir / "configs.yaml"), "--rerank", "5"])
    printed = capsys.readouterr().out
    assert "not used in testing: heads.mlm, heads.id" in printed
    first, second = printed.split("first 5 images reranked by cosine and matching head")
    assert table(first) == plain
    assert table(second)[1:3] == plain[1:3], "R5 and R10 cannot change when the first 5 are put in another order"
    alone = ["--rerank", "5", "--rerank_by", "matching"]
    test_script.main(["--config_file", str(run_dir / "configs.yaml"), *alone])
    assert "first 5 images reranked by the matching head" in capsys.readouterr().out


def test_rerank_with_a_head_that_always_says_no_changes_nothing(run_dir: Path, tmp_path: Path, capsys):
    checkpoint = torch.load(run_dir / "best.pth", weights_only=True)
    checkpoint["model"]["heads.itm.head.3.weight"].zero_()
    torch.save(checkpoint, tmp_path / "no.pth")
    flags = ["--config_file", str(run_dir / "configs.yaml"), "--checkpoint", str(tmp_path / "no.pth"), "--rerank", "8"]
    for by, shown in (("both", "cosine and matching head"), ("matching", "the matching head")):
        test_script.main([*flags, "--rerank_by", by])
        first, second = capsys.readouterr().out.split(f"reranked by {shown}")
        assert table(first) == table(second)


def test_a_cross_encoder_for_a_finished_run(run_dir: Path, data_root: Path, tmp_path: Path, capsys):
    """The towers stay as they are, and best.pth has the head of the last epoch."""
    added = tmp_path / "added"
    flags = "--dataset_name RSTPReid --pretrain_choice tiny --img_size 64 32 --num_epoch 2 --loss_names itm --lr 1e-3"
    start = ["--root_dir", data_root, "--finetune", run_dir / "best.pth", "--run_dir", added, "--freeze_towers"]
    done = python("train.py", *flags.split(), *start, "--batch_size", "8", "--num_workers", "0")
    assert done.returncode == 0, done.stderr
    old, best, last = (
        torch.load(path, weights_only=True)["model"]
        for path in (run_dir / "best.pth", added / "best.pth", added / "last.pth")
    )
    assert all(torch.equal(old[key], last[key]) for key in last if key.startswith("clip."))
    assert all(torch.equal(best[key], last[key]) for key in last)
    assert any(not torch.equal(old[key], last[key]) for key in last if key.startswith("heads.itm."))
    test_script.main(["--config_file", str(added / "configs.yaml"), "--rerank", "8"])
    assert "reranked by cosine and matching head" in capsys.readouterr().out


def test_rerank_without_a_matching_head(trained: Path, fails):
    message = fails("test", "--config_file", trained / "configs.yaml", "--rerank", "5")
    assert "best.pth: has no matching head" in message and "without --rerank" in message
    assert "--rerank -1: expected at least 0" in fails(
        "test", "--config_file", trained / "configs.yaml", "--rerank", "-1"
    )
    message = fails("test", "--config_file", trained / "configs.yaml", "--rerank_by", "matching")
    assert "--rerank_by matching: has no effect without --rerank" in message


@pytest.mark.parametrize(
    ("batch", "unusable"), [("--batch_size 13", 1), ("--batch_size 4 --sampler identity --num_instance 4", 10)]
)
def test_batches_without_negatives_count_as_zero_and_are_reported(
    data_root: Path, tmp_path: Path, batch: str, unusable: int
):
    flags = [*SMALL, "--root_dir", data_root, "--loss_names", "itc+itm", "--run_dir", tmp_path / "run"]
    train_script.main([*map(str, flags), *batch.split()])
    log = (tmp_path / "run" / "train_log.txt").read_text()
    for epoch in (1, 2):
        assert f"epoch {epoch}, itm: {unusable} batch" in log
