"""docs/extending.md: its examples, put into a copy of the project as they stand, with one line each, train and test."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from datasets.mannequins.draw import draw
from tests.helpers.runs import DRAWING, ROOT, python

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
PACKAGES = ("datasets", "model", "solver", "processor", "analysis", "gallery", "utils")
LINES = {
    "model/losses/triplet.py": ("model/losses/__init__.py", "Triplet", "HEADS", '"triplet": Triplet,'),
    "datasets/pairs_tsv.py": ("datasets/__init__.py", "load", "DATASETS", '"PairsTSV": pairs_tsv.load,'),
    "processor/metrics/reciprocal_rank.py": (
        *("processor/metrics/__init__.py", "reciprocal_rank", "METRICS", '"MRR": reciprocal_rank,'),
    ),
    "model/backbones/patches.py": ("model/backbones/__init__.py", "Patches", "BACKBONES", '"patches": Patches,'),
}
"""new file to where its line goes: the file, what it imports, the dict, the line"""


def example(name: str) -> str:
    """The code block of a file."""
    (source,) = re.findall(rf"```python\n(# {re.escape(name)}\n.*?)```", PAGE, re.S)
    return source


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the four examples in it."""
    copy = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "clip_pretrain"))
    for script in ("train.py", "test.py", "search.py"):
        shutil.copy(ROOT / script, copy / script)
    for name, (registry, imported, table, line) in LINES.items():
        assert line in PAGE
        (copy / name).write_text(example(name))
        module = name.removesuffix(".py").replace("/", ".")
        package, _, leaf = module.rpartition(".")
        text = (copy / registry).read_text()
        start = text.index(f"{table}: dict")
        opening = text.index("{", start) + 1
        statement = f"from {package} import {leaf}\n" if line.count(".") else f"from {module} import {imported}\n"
        text = text[:start] + statement + text[start:opening] + f"\n    {line}" + text[opening:]
        (copy / registry).write_text(text)
    return copy


@pytest.fixture(scope="module")
def table(project: Path) -> Path:
    """A drawn data set, written down as a table."""
    folder = project / "table"
    draw(folder, DRAWING, workers=1)
    import json

    rows = ["split\tid\timage\tcaption"]
    for record in json.loads((folder / "reid_raw.json").read_text()):
        for caption in record["captions"]:
            rows.append(f"{record['split']}\t{record['id']}\timgs/{record['file_path']}\t{caption}")
    (folder / "pairs.tsv").write_text("\n".join(rows) + "\n")
    return folder


def run(project: Path, *args: object) -> str:
    done = python(*args, cwd=project)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_four_examples_train_and_test_together(project: Path, table: Path):
    flags = ["--dataset_name", "PairsTSV", "--root_dir", table, "--run_dir", project / "run", "--device", "cpu"]
    flags += ["--pretrain_choice", "patches:32", "--img_size", 64, 32, "--num_workers", 0, "--batch_size", 8]
    flags += ["--loss_names", "triplet+id+itc", "--triplet_margin", 0.3, "--num_epoch", 2, "--lora_r", 2]
    trained = run(project, "train.py", *flags)
    assert "triplet_loss" in trained and "MRR" in trained
    assert "triplet_margin: 0.3" in (project / "run" / "configs.yaml").read_text()
    weights = torch.load(project / "run" / "best.pth", weights_only=True)["model"]
    assert "patches.image_block.0.lora_A" in weights
    tested = run(project, "test.py", "--config_file", project / "run" / "configs.yaml", "--report")
    assert re.search(r"t2i .*(\d+\.\d+ .*){6}", tested)


def test_a_bad_table_is_one_clear_error(project: Path, tmp_path: Path):
    (tmp_path / "pairs.tsv").write_text("split\tid\timage\tcaption\ntrain\tx\ta.jpg\ta man\n")
    flags = ["--dataset_name", "PairsTSV", "--root_dir", tmp_path, "--pretrain_choice", "tiny"]
    done = python("train.py", *flags, cwd=project)
    assert done.returncode == 2 and "line 2 needs split" in done.stderr and "Traceback" not in done.stderr


def test_a_shape_error_in_ones_own_loss_keeps_its_traceback(project: Path, table: Path):
    source = example("model/losses/triplet.py").replace("negative_BB.amax(dim)", "negative_BB.amax(dim)[:, None, 1:]")
    (project / "model/losses/triplet.py").write_text(source)
    flags = ["--dataset_name", "PairsTSV", "--root_dir", table, "--run_dir", project / "bad", "--device", "cpu"]
    flags += ["--pretrain_choice", "patches:32", "--img_size", "64", "32", "--num_workers", "0"]
    done = python("train.py", *flags, "--loss_names", "triplet", cwd=project)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "triplet.py" in done.stderr and "IndexError" in done.stderr


def test_the_triplet_loss_against_a_loop(project: Path):
    code: dict[str, object] = {"__name__": "model.losses.triplet"}
    import types

    module = types.ModuleType("triplet_of_the_manual")
    sys.modules[module.__name__] = module
    code = module.__dict__
    exec(compile(example("model/losses/triplet.py"), "docs/extending.md", "exec"), code)
    image, text, pids = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 0, 1, 2, 3])
    cosine = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    expected = 0.0
    for i in range(5):
        rows = max(cosine[i, j].item() for j in range(5) if pids[i] != pids[j])
        columns = max(cosine[j, i].item() for j in range(5) if pids[i] != pids[j])
        expected += max(0, 0.2 + rows - cosine[i, i].item()) / 5 + max(0, 0.2 + columns - cosine[i, i].item()) / 5
    assert code["triplet_loss"](image, text, pids, 0.2).item() == pytest.approx(expected, rel=1e-4)
