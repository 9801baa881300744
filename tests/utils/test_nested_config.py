"""TBPS-CLIP's nested configuration as flags."""

from pathlib import Path

import pytest
import yaml

import test as test_script
import train
from datasets.captions import AugmentOptions
from datasets.options import DataOptions
from model.adapters import FreezeOptions
from model.backbones.spec import BackboneOptions
from model.build import LossOptions
from model.losses.ss import SSOptions
from solver import ScheduleOptions, SolverOptions
from utils.options import Options

NESTED = """
anno_dir: annotations
device: cuda
data: {batch_size: 80, num_workers: 8, test_batch_size: 256}
experiment: {back_trans: true, backtrans_p: 0.1, citc: true, citc_ratio: 0.1, dropout: 0.05, eda_alpha: 0.05,
  id: true, id_ratio: 2.0, input_resolution: [224, 112], mixgen: false, mlm: false, mvs_image: true, nitc_ratio: 1.0,
  ritc: false, simclr_mlp: [512, 128, 256], ss: true, text_length: 77}
model: {checkpoint: clip.pt, ckpt_type: original_clip, embed_dim: 512, softlabel_ratio: 0.5}
schedule: {betas: [0.9, 0.98], epoch: 5, epoch_warmup: 1, eps: 1.0e-8, lr: 1.0e-4, lr_end: 5.0e-6, lr_start: 1.0e-6,
  ratio_factor: 3.0, weight_decay: 0.02}
misc: {seed: 1}
"""


def read(tmp_path: Path, **changes: object) -> Options:
    content = yaml.safe_load(NESTED)
    for name, value in changes.items():
        section, _, key = name.partition("__")
        content[section][key] = value
    (tmp_path / "config.yaml").write_text(yaml.dump(content))
    return train.read_flags(["--config_file", str(tmp_path / "config.yaml")])


def test_every_key_finds_its_flag(tmp_path):
    get = read(tmp_path).get
    assert get(LossOptions).names == ("nitc", "citc", "ss", "id")
    assert get(AugmentOptions).augment == ("pool",)
    assert (get(AugmentOptions).back_translation, get(AugmentOptions).word_deletion) == (0.1, 0.05)
    assert get(BackboneOptions).img_size == (224, 112) and get(BackboneOptions).clean_text
    assert (get(BackboneOptions).pixel_statistics, get(BackboneOptions).eval_filter) == ("imagenet", "bicubic")
    assert (get(FreezeOptions).text_dropout, get(FreezeOptions).freeze_patch_embedding) == (0.05, True)
    assert (get(SSOptions).ss_hidden, get(SSOptions).ss_width) == (128, 256)
    assert (get(DataOptions).batch_size, get(DataOptions).seed) == (80, 1)
    solver, schedule = get(SolverOptions), get(ScheduleOptions)
    assert (solver.optimizer, solver.alpha, solver.beta, solver.lr_factor) == ("AdamW", 0.9, 0.98, 3.0)
    assert (schedule.schedule_per, schedule.warmup_factor) == ("step", pytest.approx(0.01))


def test_without_back_translation(tmp_path):
    assert read(tmp_path, experiment__back_trans=False).get(AugmentOptions).back_translation == 0


def test_testing_reads_it_too(tmp_path):
    read(tmp_path)
    options = test_script.read_flags(["--config_file", str(tmp_path / "config.yaml"), "--img_size", "96", "32"])
    assert options.get(BackboneOptions).img_size == (96, 32)
    assert options.get(BackboneOptions).pixel_statistics == "imagenet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment__mixgen": True}, "experiment.mixgen is not built here"),
        ({"experiment__rits": True}, "unknown flag 'experiment.rits'"),
        ({"schedule__betas": [0.9]}, "not a configuration of TBPS-CLIP (ValueError"),
        ({"schedule__lr": 0}, "not a configuration of TBPS-CLIP (ZeroDivisionError"),
        ({"schedule__lr_start": "small"}, "not a configuration of TBPS-CLIP (ValueError"),
        ({"experiment__dropout": 2}, "--text_dropout 2.0: expected"),
    ],
)
def test_what_it_cannot_mean(tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit):
        read(tmp_path, **changes)
    assert message in " ".join(capsys.readouterr().err.split())
