"""test.py on a run directory with the published PHP's names."""

import re
from pathlib import Path

import pytest
import torch
import yaml

import test as script
import train
from datasets.batches.evaluation_split import EvaluationSplit
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.records import ImageRecord
from model.adapters.parsing import LEAK
from model.backbones import BackboneOptions, load_backbone
from model.build import build_retriever
from model.retriever import Retriever

PUBLISHED_NAMES = (
    (r"^clip\.text\.", "base_model."),
    (r"^clip\.", "base_model."),
    (r"\.in_proj\.(weight|bias)$", r".in_proj_\1"),
    (r"^parsing\.crfm\.", "safl."),
    (r"^parsing\.efp\.", "shared_transformer."),
    (r"\.moe\.", ".feed_forward."),
    (r"\.task$", ".comb_param"),
    (r"\.expert_count$", ".expert_count_accum"),
)


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names to those of the published program, one entry per expert."""
    theirs = {"safl.pos_embeding": torch.zeros(162, 64)}
    for key, value in state.items():
        for pattern, replacement in PUBLISHED_NAMES:
            key = re.sub(pattern, replacement, key)
        if ".experts." in key:
            theirs |= {key.replace(".experts.", f".experts.{number}."): row for number, row in enumerate(value)}
        else:
            theirs[key] = value
    return theirs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as the published program leaves it."""
    folder = tmp_path_factory.mktemp("published")
    flags = {"loss_names": "sdm+itc+aux", "cnum": 3, "num_experts": 4, "topk": 2, "reduction": 8, "moe_layers": 2}
    flags |= {"moe_heads": 4, "aux_factor": 3.0, "moe_lr_factor": 10.0, "transformer_lr_factor": 2.0}
    flags |= {"img_size": (64, 32), "dataset_name": "Mannequins", "root_dir": str(folder / "data"), "num_workers": 0}
    (folder / "configs.yaml").write_text(yaml.dump(flags))
    options = train.read_flags(["--config_file", str(folder / "configs.yaml"), "--pretrain_choice", "tiny"])
    model = build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=5, images=6, pairs=8)
    torch.save({"model": published(model.state_dict()), "epoch": 1}, folder / "best.pth")
    return folder


def log_of(run: Path, *flags: str) -> str:
    """What test.py writes about the run."""
    few = ("--mannequin_train_ids", "2", "--mannequin_val_ids", "2", "--mannequin_test_ids", "6")
    (run / "test_log.txt").unlink(missing_ok=True)
    script.main(["--config_file", str(run / "configs.yaml"), "--mannequin_height", "64", *few, *flags])
    return (run / "test_log.txt").read_text()


def test_a_published_run_attends_over_the_batch_and_says_so(run: Path):
    log = log_of(run)
    assert LEAK in log
    assert "t2i" in log
    assert "entropy" in log
    assert "not used" not in log


def test_token_attention_can_be_asked_for(run: Path):
    log = log_of(run, "--php_attention", "tokens")
    assert LEAK not in log


def test_captions_keep_their_order_and_padding_for_php():
    captions = ("a man in a long red coat", "a man", "a woman in white")
    records = [ImageRecord(number, number, Path("x.png"), (caption,)) for number, caption in enumerate(captions)]
    options = DataOptions(test_batch_size=2, num_workers=0)
    form = Retriever(load_backbone(BackboneOptions("tiny"))).input_format(77)
    given = records, Images((64, 32)), options, torch.device("cpu")

    def batches(padded: bool) -> list[tuple[torch.Tensor, ...]]:
        records, images, options, device = given
        split = EvaluationSplit("test", records, images, form._replace(reads_padding=padded), options, device)
        return list(split.text_batches())

    assert [place.tolist() for place, _, _ in batches(True)] == [[0, 1], [2]]
    assert {ids.shape[1] for _, ids, _ in batches(True)} == {77}
    assert [place.tolist() for place, _, _ in batches(False)] == [[1, 2], [0]]
