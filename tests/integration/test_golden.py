"""Parity with what the published programs compute, for every case below ``$GOLDEN_DIR``."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch

import test as test_script
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import ParsingOptions
from model.adapters.token_selection import TokenSelectionOptions
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.build import LossOptions
from model.checkpoints.published import has_published_parsing, our_names
from model.checkpoints.restore import RestoredRun, restore_encoder
from model.losses import HEADS
from model.matcher import restore_matcher
from tests.helpers.golden import (
    ALWAYS_PARSES,
    SYSTEMS,
    Case,
    cases,
    check_banks,
    check_features,
    check_gradients,
    check_losses,
    check_optimizer,
    check_trajectory,
    core_params,
    params,
)
from utils.command import parse

VARIANTS = {"base": "_base", "crfm": "_safl", "efp": "_efp", "full": ""}
"""our variants of PHP to the suffix of the recorded features"""


@pytest.fixture(autouse=True)
def likeliest_negative(monkeypatch: pytest.MonkeyPatch):
    """The recorded ICLF took the hardest negative, where training draws one."""
    monkeypatch.setattr(torch, "multinomial", lambda weights, samples: weights.argmax(dim=1, keepdim=True))


@pytest.mark.skipif("GOLDEN_DIR" in os.environ, reason="another $GOLDEN_DIR may hold any cases")
def test_there_are_cases_of_everything():
    assert core_params()
    for system in SYSTEMS:
        assert cases(system), system
    assert {case.retriever().attends_over_batch for case in cases("php")} == {False, True}


@pytest.mark.parametrize("case", params())
def test_losses_gradients_and_memories(case: Case):
    for moment in case.moments:
        model = case.retriever(moment.before).train()
        step, views = model(case.batch(moment.batch), moment.epoch, case.epoch_share)
        check_losses(case, moment, step)
        step.loss.backward()
        model.after_step(views)
        check_banks(case, model, moment.after)
    check_gradients(case, model)


@pytest.mark.parametrize("case", params())
def test_features_and_optimizer(case: Case):
    model = case.retriever()
    check_optimizer(case, model)
    check_features(case, model)


@pytest.mark.parametrize("case", params())
def test_trajectory(case: Case):
    check_trajectory(case)


@pytest.mark.parametrize("case", params("dgcmia"))
def test_memories_do_not_count_in_the_first_epoch(case: Case):
    if "memory_soft" not in case.losses:
        pytest.skip("this case has no memory_soft")
    assert case.retriever().train()(case.batch(), epoch=1)[0].report["memory_soft_loss"] == 0


@pytest.mark.parametrize("case", params())
def test_testing_a_published_checkpoint_needs_no_head(case: Case):
    state, unknown = our_names(published(case))
    options = case.options
    model, unused = restore_encoder(
        state,
        options.get(BackboneOptions),
        "best.pth",
        options.get(LoRAOptions),
        options.get(ParsingOptions),
        selection_options=options.get(TokenSelectionOptions),
    )
    assert not unknown and not model.heads
    assert set(unused) == {key for key in state if key.startswith(("heads.", "parts."))}


@pytest.mark.parametrize("case", params())
def test_published_configs(case: Case):
    path = case.folder / "configs.yaml"
    if not path.exists():
        pytest.skip("this case has no configs.yaml")
    options = test_script.read_flags(["--config_file", str(path)])
    assert options.get(BackboneOptions).img_size == tuple(case.json["img_size"])
    assert options.get(LossOptions).loss_names == case.options.get(LossOptions).loss_names
    groups = [HEADS[name].Options for name in case.losses]
    saved = parse({"losses": groups}, ["--config_file", str(path)], "", lenient=True)
    for group in groups:
        flags = vars(case.options.get(group))
        given = {name: flags[name] for name in flags if flags[name] is not None and f"--{name}" not in ALWAYS_PARSES}
        assert {name: getattr(saved.get(group), name) for name in given} == given


@pytest.mark.parametrize("case", params())
def test_towers_start_from_their_clip_archive(case: Case):
    if not (case.folder / "clip.pt").exists():
        pytest.skip("this case has no clip.pt")
    choice = f"openai:{case.folder / 'clip.pt'}"
    backbone = dataclasses.replace(case.options.get(BackboneOptions), pretrain_choice=choice)
    trained = case.retriever().clip.state_dict()
    for name, value in load_backbone(backbone).state_dict().items():
        torch.testing.assert_close(value, trained[name], atol=1e-3, rtol=1e-3, msg=name)


def published(case: Case) -> dict[str, torch.Tensor]:
    """The weights as the published program saves them from several processes."""
    return {f"module.{key}": value for key, value in case.part("model").items()}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", params("php"))
def test_features_of_every_variant_from_a_published_checkpoint(case: Case, variant: str):
    if f"out/image_features{VARIANTS[variant]}" not in case.tensors:
        pytest.skip("this case has no features of this variant")
    wrong_sizes = {"cnum": 2, "num_experts": 3, "reduction": 2, "moe_layers": 1}
    options = dataclasses.replace(case.options.get(ParsingOptions), php_variant=variant, **wrong_sizes)
    assert has_published_parsing(published(case))
    state, unknown = our_names(published(case))
    model, unused = restore_encoder(state, case.options.get(BackboneOptions), "best.pth", parsing_options=options)
    assert not unknown
    assert any(key.startswith("parsing.") for key in unused) == (variant != "full")
    check_features(case, model, VARIANTS[variant])


@pytest.mark.parametrize("case", params("php"))
def test_counters_of_a_published_checkpoint_are_read(case: Case):
    saved = dict(case.part("model"))
    counter = max(key for key in saved if key.endswith("expert_count_accum"))
    block = int(counter.split(".")[2])
    saved[counter] = torch.arange(1, len(saved[counter]) + 1)
    state, _ = our_names(saved)
    parsing = case.options.get(ParsingOptions)
    model, _ = restore_encoder(state, case.options.get(BackboneOptions), "best.pth", parsing_options=parsing)
    assert torch.equal(model.expert_use()["training"][block], saved[counter])


@pytest.mark.parametrize("case", params("iclf"))
def test_the_matcher_of_a_published_checkpoint_is_the_one_of_training(case: Case):
    if "itm" not in case.losses:
        pytest.skip("this case has no matching head")
    state, unknown = our_names({**published(case), "module.text_encoder.pooler.dense.weight": torch.zeros(2, 2)})
    model, batch = case.retriever(), case.batch()
    run = RestoredRun(Path("best.pth"), model, state, (), (), ParsingOptions())
    matcher, used = restore_matcher(run)
    assert not unknown and {key.split(".")[1] for key in used} == {"cross_former", "itm"}
    with torch.no_grad():
        text = model.encode_text(batch["caption_ids"], batch["caption_ids_lengths"]).tokens
        image = model.encode_image(batch["images"]).tokens
        logits = model.heads["itm"].match(model.parts["cross_former"], text, image)
        torch.testing.assert_close(matcher(text, image), logits[:, 1] - logits[:, 0])
