"""Parity of DGCMIA's losses, banks and gradients with the published program, for every case below ``$GOLDEN_DIR``."""

import pytest
import torch

from model.backbones.spec import BackboneOptions
from model.checkpoints.published import our_names
from model.checkpoints.restore_encoder import restore_encoder
from model.losses.memory_soft import MemorySoftOptions
from model.losses.soft import SoftOptions
from tests.helpers.golden import Case, systems
from tests.integration.test_golden import (
    check_features,
    check_gradients,
    check_losses,
    check_optimizer,
    check_trajectory,
)
from utils.command import parse

DGCMIA = [pytest.param(case, id=case.folder.name) for case in systems("dgcmia")]
NAMES = {"sdm_loss": "itc1_loss", "mem_loss": "memory_soft_loss", "temperature": ""}


class Recorded(Case):
    """A recorded run whose second caption view goes by our name."""

    def batch(self, prefix: str = "batch") -> dict[str, torch.Tensor]:
        batch = self.part(prefix)
        return {**batch, "caption_ids_aug": batch["mlm_ids"]}

    def with_banks(self, prefix: str) -> torch.nn.Module:
        """Our model in training mode with the recorded weights and the banks below a prefix."""
        model = self.retriever().train()
        banks = self.part(prefix)
        model.heads["memory_soft"].image_bank.copy_(banks["img_memory"])
        model.heads["memory_soft"].text_bank.copy_(banks["txt_memory"])
        return model


def check_banks(case: Case, model: torch.nn.Module, prefix: str) -> None:
    recorded, head = case.part(prefix), model.heads["memory_soft"]
    torch.testing.assert_close(head.image_bank, recorded["img_memory"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head.text_bank, recorded["txt_memory"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", DGCMIA)
def test_first_epoch_fills_the_banks(case: Case):
    case = Recorded(case.folder)
    model = case.retriever().train()
    step, views = model(case.batch(), epoch=1)
    check_losses(step.report, case.json["losses"]["epoch1"], NAMES)
    assert step.report["memory_soft_loss"] == 0
    step.loss.backward()
    model.after_backward(views)
    check_banks(case, model, "out/epoch1")


@pytest.mark.parametrize("case", DGCMIA)
def test_second_epoch_learns_from_them(case: Case):
    case = Recorded(case.folder)
    model = case.with_banks("epoch2_start")
    step, views = model(case.batch("batch2"), epoch=2)
    check_losses(step.report, case.json["losses"]["epoch2"], NAMES)
    step.loss.backward()
    model.after_backward(views)
    check_banks(case, model, "out/epoch2")
    check_gradients(case, model)


@pytest.mark.parametrize("case", DGCMIA)
def test_features_optimizer_and_trajectory(case: Case):
    case = Recorded(case.folder)
    model = case.retriever()
    check_optimizer(case, model)
    check_features(case, model)
    check_trajectory(case, case.with_banks("epoch2_start"), epoch=2, prefix="batch2")


@pytest.mark.parametrize("case", DGCMIA)
def test_published_weights_are_known_by_name_and_testing_needs_no_bank(case: Case):
    state, unknown = our_names({f"module.{key}": value for key, value in case.part("model").items()})
    assert not unknown
    model, unused = restore_encoder(state, case.options.get(BackboneOptions), case.folder.name)
    assert set(unused) == {"heads.memory_soft.image_bank", "heads.memory_soft.text_bank"}
    assert not model.heads


@pytest.mark.parametrize("case", DGCMIA)
def test_published_configs_hold_the_flags(case: Case):
    groups = {"losses": [SoftOptions, MemorySoftOptions]}
    saved = parse(groups, ["--config_file", str(case.folder / "configs.yaml")], "", lenient=True)
    for group in groups["losses"]:
        assert saved.get(group) == case.options.get(group)
