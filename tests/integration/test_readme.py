"""What the README shows works as it stands."""

import re
import shlex
import sys
import types
from pathlib import Path

import pytest
import torch

import search as search_script
import test as test_script
import train as train_script
from model import losses
from tests.helpers.runs import ROOT, SMALL
from utils.command import build_parser

README = (ROOT / "README.md").read_text(encoding="utf-8")
OF_TORCHRUN = {"nproc_per_node", "nnodes", "node_rank", "master_addr", "max_restarts", "rdzv_id", "local_rank", "local"}
"""flags that the launcher takes, or would pass on"""


def test_the_new_loss_of_the_readme(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (source,) = re.findall(r"```python\n(# model/losses/triplet.py\n.*?)```", README, re.S)
    assert len(source.splitlines()) <= 42
    module = types.ModuleType("model.losses.triplet")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "README.md", "exec"), module.__dict__)
    monkeypatch.setitem(losses.HEADS, "triplet", module.Triplet)
    groups = {**train_script.GROUPS, "example": [module.TripletOptions]}
    monkeypatch.setattr(train_script, "GROUPS", groups)
    flags = [*SMALL, "--root_dir", str(data_root), "--run_dir", str(tmp_path / "run"), "--triplet_margin", "0.3"]
    train_script.main([*flags, "--loss_names", "triplet+id"])
    assert "triplet_margin: 0.3" in (tmp_path / "run" / "configs.yaml").read_text()
    assert "triplet_loss" in (tmp_path / "run" / "train_log.txt").read_text()

    image, text, pids = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 0, 1, 2, 3])
    cosine = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    expected = 0.0
    for i in range(5):
        rows = max(cosine[i, j].item() for j in range(5) if pids[i] != pids[j])
        columns = max(cosine[j, i].item() for j in range(5) if pids[i] != pids[j])
        expected += max(0, 0.2 + rows - cosine[i, i].item()) / 5 + max(0, 0.2 + columns - cosine[i, i].item()) / 5
    assert module.triplet_loss(image, text, pids, 0.2).item() == pytest.approx(expected, rel=1e-4)


def test_files_and_flags_that_the_readme_names_exist():
    for path in re.findall(r"(?:configs|tests|model|datasets|utils)/[\w./-]+\.(?:yaml|py|jpg|png|md)", README):
        if "triplet" not in path:
            assert (ROOT / path).exists(), path
    scripts = (train_script, test_script, search_script)
    help_text = "".join(build_parser(script.GROUPS, "").format_help() for script in scripts)
    of_others = re.compile(r"python -m [^`\n]*")  # modules have flags of their own
    named = set(re.findall(r"(?<![\w-])--([a-z_A-Z0-9]{3,})", of_others.sub("", README)))
    for flag in named - {"layout", "root", "help", "config_file", "latex", "markdown"}:
        if "triplet" not in flag and flag not in OF_TORCHRUN:
            assert f"--{flag}" in help_text, flag


def test_published_commands_are_understood(tmp_path: Path):
    commands = re.findall(r"^python train\.py (.*)$", README, re.M)
    assert len(commands) == 5
    for command in commands:
        options = train_script.read_flags(shlex.split(command))
        assert options.given("loss_names"), command
