"""What published command lines imply beyond their flags."""

import pytest

import train
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.build import build_retriever
from model.losses.bank import BankOptions
from model.presets import PHP_WEIGHTS, momentum_flag, preset_weights
from solver.optimizer import SolverOptions
from utils.command import parse


def weights(losses: str, *flags: str) -> dict[str, float]:
    argv = ["--pretrain_choice", "tiny", "--img_size", "32", "32", "--loss_names", losses, *flags]
    options = train.read_flags(argv)
    model = build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=5, images=6, pairs=8)
    return {name: head.weight for name, head in model.heads.items()}


def test_without_php_all_weights_are_1(messages):
    assert weights("itc+mlm+id") == {"itc": 1.0, "mlm": 1.0, "id": 1.0}
    assert preset_weights(("itc", "mlm", "id")) == {}
    assert "weight of the loss" not in messages.text


def test_the_loss_aux_brings_phps_weights_and_says_so(messages):
    assert weights("sdm+itc+mlm+id+aux") == {"sdm": 1.0, "itc": 5.0, "mlm": 0.5, "id": 1.0, "aux": 3.0}
    assert preset_weights(("itc", "aux")) == PHP_WEIGHTS
    said = [line for line in messages.messages if line.startswith("weight of the loss")]
    assert [line.split(",")[0] for line in said] == ["weight of the loss itc: 5", "weight of the loss mlm: 0.5"]


def test_only_the_losses_that_are_there_are_weighed(messages):
    assert weights("sdm+aux") == {"sdm": 1.0, "aux": 3.0}
    assert "weight of the loss" not in messages.text


def test_flags_win_over_the_preset(messages):
    given = ("--itc_loss_weight", "1", "--mlm_loss_weight", "2", "--aux_factor", "0.5")
    assert weights("itc+mlm+aux", *given) == {"itc": 1.0, "mlm": 2.0, "aux": 0.5}
    assert "weight of the loss" not in messages.text


@pytest.mark.parametrize("variant", ["base", "crfm", "efp", "full"])
def test_no_php_variant_changes_the_weights_of_other_losses(messages, variant: str):
    """``base`` is the baseline of an ablation: it must differ by the parsing alone."""
    assert weights("itc+mlm+id", "--php_variant", variant) == {"itc": 1.0, "mlm": 1.0, "id": 1.0}
    assert "weight of the loss" not in messages.text


@pytest.mark.parametrize(("losses", "bank", "sgd"), [("TAL+memory", 0.3, 0.9), ("sdm", 0.1, 0.3)])
def test_momentum_means_what_the_losses_make_of_it(losses: str, bank: float, sgd: float, tmp_path):
    file = tmp_path / "configs.yaml"
    file.write_text("momentum: 0.3\n")
    flag = momentum_flag(losses.split("+"))
    for argv in (["--momentum", "0.3"], ["--config_file", str(file)]):
        options = parse({"all": [BankOptions, SolverOptions]}, argv, "").renamed("momentum", flag)
        assert (options.get(BankOptions).bank_momentum, options.get(SolverOptions).sgd_momentum) == (bank, sgd)
    options = parse({"all": [BankOptions, SolverOptions]}, [*argv, "--bank_momentum", "0.5"], "")
    assert options.renamed("momentum", "bank_momentum").get(BankOptions).bank_momentum == 0.5
