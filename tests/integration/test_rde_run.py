"""RDE as users run it, on small real data: the published command, its table, a published run directory, a report."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import search as search_script
import test as test_script
import train as train_script
from model import load_run
from processor.run_dir.history import read_history
from tests.helpers.runs import table
from utils.options import load_train_configs

PUBLISHED = (
    "--noisy_rate 0.0 --noisy_file ./noiseindex/CUHK-PEDES_0.0.npy --name RDE --img_aug --txt_aug --batch_size 8 "
    "--select_ratio 0.3 --tau 0.015 --margin 0.1 --loss_names TAL+sr0.3_tau0.015_margin0.1_n0.0 --num_epoch 1"
)
TINY = "--pretrain_choice tiny --img_size 64 32 --num_workers 0 --device cpu"
LAYERS = {
    "linear": {"image": "fc", "text": "linear"},
    "hidden": "mlp.layers.0",
    "out": "mlp.layers.1",
    "norm": "mlp.bns.0",
}
"""our names of the second embedding's layers to the published ones"""


@pytest.fixture(scope="module")
def run_dir(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the published training command leaves behind."""
    folder = tmp_path_factory.mktemp("rde") / "run"
    train_script.main([*PUBLISHED.split(), *TINY.split(), "--root_dir", str(data_root), "--run_dir", str(folder)])
    return folder


def printed_by(run_dir: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    test_script.main(["--config_file", str(run_dir / "configs.yaml"), *more])
    return capsys.readouterr().out


def test_the_log_says_what_was_understood(run_dir: Path):
    log = (run_dir / "train_log.txt").read_text()
    for line in (
        "RDE's second embedding, of 0.3 of the tokens, batch norm frozen; TAL of both embeddings",
        "sr0.3_tau0.015_margin0.1_n0.0 is read as a label of the run",
        "TAL: RDE's form, tau 0.015, margin 0.1",
        "division of the training pairs before every epoch, by TAL, fit loose",
        "division before epoch 1: ",
    ):
        assert line in log
    assert "label noise" not in log and "exchanged" not in log
    (division,) = [entry.division for entry in read_history(run_dir) if entry.division]
    assert set(division) == {"clean", "uncertain", "noisy", "used"}
    assert load_train_configs(run_dir / "configs.yaml").division_fit == "loose"


def test_every_embedding_has_a_row_and_one_row_is_both(run_dir: Path, capsys):
    printed = printed_by(run_dir, capsys, "--i2t")
    rows = {name: table(printed, name) for name in ("t2i", "t2i BGE", "t2i TSE", "i2t", "i2t BGE", "i2t TSE")}
    assert len({tuple(row) for row in rows.values()}) > 3
    assert all(len(line) < 80 for line in printed.splitlines() if line.startswith("|"))


def published_name(key: str) -> str:
    root, side, layer, *name = key.split(".")
    if root == "clip":
        return "base_model." + key.removeprefix("clip.").removeprefix("text.").replace(".in_proj.", ".in_proj_")
    there = LAYERS[layer] if isinstance(LAYERS[layer], str) else LAYERS[layer][side]
    return ".".join([{"image": "visul_emb_layer", "text": "texual_emb_layer"}[side], there, *name])


def test_a_published_run_directory(run_dir: Path, data_root: Path, tmp_path: Path, capsys):
    saved = torch.load(run_dir / "best.pth", weights_only=True)
    model = {f"module.{published_name(key)}": value for key, value in saved["model"].items()}
    for side, width in (("visul", 64), ("texual", 64)):  # which the program has, and never uses
        model[f"module.{side}_emb_layer.mlp.bns.1.weight"] = torch.ones(2 * width)
    model["module.visul_emb_layer.linear.weight"] = torch.ones(128, 64)
    torch.save({"model": model, "iteration": 0, "epoch": 1}, tmp_path / "best.pth")
    flags = {"loss_names": "TAL+sr0.3", "select_ratio": 0.3, "noisy_rate": 0.2, "noisy_file": "", "txt_aug": True}
    flags |= {
        "img_size": (64, 32),
        "stride_size": 16,
        "text_length": 77,
        "pretrain_choice": "tiny",
        "distributed": False,
    }
    flags |= {"tau": 0.015, "margin": 0.1, "dataset_name": "CUHK-PEDES", "local_rank": 0, "vocab_size": 49408}
    (tmp_path / "configs.yaml").write_text(yaml.dump(flags))
    ours = printed_by(run_dir, capsys)
    theirs = printed_by(tmp_path, capsys, "--dataset_name", "RSTPReid", "--root_dir", str(data_root))
    for row in ("t2i", "t2i BGE", "t2i TSE"):
        assert table(theirs, row) == table(ours, row)


def test_report_search_and_notebook_see_one_feature(run_dir: Path, data_root: Path, tmp_path: Path, capsys):
    printed_by(run_dir, capsys, "--report", "--report_dir", str(tmp_path / "report"))
    assert list((tmp_path / "report").glob("*.html"))
    photos = sorted((data_root).glob("**/*.jpg"))[:6]
    retriever = load_run(run_dir)
    features = retriever.encode_image(photos)
    assert features.shape == (6, 64 + 128)
    scores, positions = retriever.rank(["a man in a red coat"], features, k=3)
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos:
        shutil.copy(photo, folder)
    flags = [
        "--config_file",
        run_dir / "configs.yaml",
        "--gallery",
        folder,
        "--index_dir",
        tmp_path / "index",
        "--k",
        "3",
    ]
    search_script.main([*map(str, flags), "--query", "a man in a red coat", "--output", str(tmp_path / "found")])
    hits = map(json.loads, (tmp_path / "found" / "results.jsonl").read_text().splitlines())
    found = [Path(hit["path"]).name for hit in hits]
    assert found == [photos[position].name for position in positions[0]] and scores[0, 0] >= scores[0, 2]
