"""What --finetune takes from a checkpoint, and what it leaves."""

import logging
from pathlib import Path

import pytest
import torch

import train
from model.backbones import load_backbone
from model.backbones.positions import stretch_positions
from model.backbones.spec import BackboneOptions
from model.build import build_retriever
from model.checkpoints.finetune import finetune, start_from
from model.retriever import Retriever
from utils import UserError


def build(*flags: str) -> Retriever:
    options = train.read_flags(["--pretrain_choice", "tiny", "--img_size", "32", "32", *flags])
    return build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=3, images=6, pairs=8)


def test_what_fits_is_taken_and_unmerged_lora_refused():
    source = build("--loss_names", "sdm+id+mlm").state_dict()
    source["heads.id.classifier.weight"] = torch.zeros(9, 64)
    model = build("--loss_names", "memory+id", "--lora_r", "2", "--prompt_depth", "1")
    used, unused = start_from(model, source, "x.pth")
    assert used == ["clip.text", "clip.visual", "heads.id"]
    assert unused == ["heads.id", "heads.mlm", "parts.cross_former"]
    assert torch.equal(model.state_dict()["clip.visual.proj"], source["clip.visual.proj"])
    with pytest.raises(UserError, match="not merged; .*--export_merged"):
        start_from(build("--loss_names", "sdm"), model.state_dict(), "x.pth")
    source["clip.visual.proj"] = source["clip.visual.proj"].long()
    with pytest.raises(UserError, match=r"--finetune x.pth: 1 of .*clip.visual.proj .*torch.int64"):
        start_from(model, source, "x.pth")
    del source["clip.visual.proj"]
    with pytest.raises(UserError, match=r"--finetune x.pth: 1 of \d+ .*clip.visual.proj .*not there"):
        start_from(model, source, "x.pth")


def test_a_foreign_temperature_does_not_become_itms(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logging.getLogger("descry"), "propagate", True)
    model, path = build("--loss_names", "itc+itm"), tmp_path / "other.pth"
    towers = {key: value for key, value in model.state_dict().items() if key.startswith("clip.")}
    torch.save({"model": {**towers, "module.temp": torch.tensor(3.0)}}, path)
    with caplog.at_level(logging.INFO, "descry"):
        finetune(model, path)
    assert model.heads["itm"].temp.item() == pytest.approx(0.07)
    assert "used clip.text, clip.visual; not used: module.temp" in caplog.text
    torch.save({"model": {**towers, "heads.itm.temp": torch.tensor(0.2)}}, path)
    finetune(model, path)
    assert model.heads["itm"].temp.item() == pytest.approx(0.2)


@pytest.mark.parametrize("rule", ["linear", "keep20"])
def test_text_positions_are_stretched(tmp_path: Path, rule: str):
    short, path = build("--loss_names", "itc").state_dict(), tmp_path / "short.pth"
    torch.save({"model": short}, path)
    long = build("--loss_names", "itc", "--text_length", "168", "--text_stretch", rule)
    finetune(long, path, rule)
    name = "clip.text.positional_embedding"
    assert torch.equal(long.state_dict()[name], stretch_positions(short[name], 168, rule))
    with pytest.raises(UserError, match=r"positional_embedding .*\(77, 64\) there, \(168, 64\) here.*--text_length"):
        finetune(long, path)
