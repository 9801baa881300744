"""The matcher of a trained run: read off its checkpoint, in the order of the probability that its loss trains."""

from pathlib import Path

import pytest
import torch

import train
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.build import build_retriever
from model.checkpoints.restore import RestoredRun, restore
from model.matcher import restore_matcher
from model.retriever import Retriever
from utils import UserError
from utils.options import Options

FLAGS = ["--pretrain_choice", "tiny", "--img_size", "32", "32"]


def saved(path: Path, *flags: str) -> tuple[Retriever, Options]:
    torch.manual_seed(0)
    options = train.read_flags([*FLAGS, *flags])
    model = build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=5, images=6, pairs=8)
    torch.save({"model": model.state_dict()}, path)
    return model, options


def test_matcher_is_read_off_a_checkpoint(tmp_path: Path):
    trained, options = saved(tmp_path / "best.pth", "--loss_names", "itc+id+itm", "--cmt_depth", "3")
    run = restore(tmp_path / "best.pth", options.get)
    matcher, used = restore_matcher(run)
    assert used == {key for key in run.state if key.startswith(("parts.cross_former.", "heads.itm."))}
    assert used < set(run.unused)
    text, image = torch.randn(4, 6, 64), torch.randn(4, 9, 64)
    scores = matcher(text, image)
    assert scores.dtype == torch.float32 and not matcher.training
    logits = trained.heads["itm"].match(trained.parts["cross_former"], text, image)
    torch.testing.assert_close(scores, logits[:, 1] - logits[:, 0])
    torch.testing.assert_close(scores.sigmoid(), logits.softmax(dim=1)[:, 1])
    assert matcher.temperature == trained.heads["itm"].temp.item()


def test_a_run_without_a_matching_head_says_so(tmp_path: Path):
    _, options = saved(tmp_path / "best.pth", "--loss_names", "itc+mlm")
    run = restore(tmp_path / "best.pth", options.get)
    with pytest.raises(UserError, match="best.pth: has no matching head.*itm.*without --rerank"):
        restore_matcher(run)
    torn = RestoredRun(run.checkpoint, run.model, {"heads.itm.temp": torch.tensor(0.07)}, (), (), run.parsing)
    with pytest.raises(UserError, match="best.pth: does not fit the model\n  missing cross_former"):
        restore_matcher(torn)
