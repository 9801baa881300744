"""Parity of PHP with the published program, for every php case below ``$GOLDEN_DIR``, in both attention layouts."""

import dataclasses
import os

import pytest
import torch
from torch import nn

from model.adapters.parsing import ParsingOptions
from model.backbones.spec import BackboneOptions
from model.checkpoints.published import has_published_parsing, our_names
from model.checkpoints.restore_encoder import restore_encoder
from model.retriever import Retriever
from tests.helpers.golden import Case, systems
from tests.integration.test_golden import check_features, check_system

PHP = [pytest.param(case, id=case.folder.name) for case in systems("php")]
VARIANTS = {"base": "_base", "crfm": "_safl", "efp": "_efp", "full": ""}
"""ours to the suffix of the recorded features"""


def retriever(case: Case) -> Retriever:
    """The trained model as recorded: without dropout."""
    model = case.retriever()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.skipif("GOLDEN_DIR" in os.environ, reason="another $GOLDEN_DIR may hold any cases")
def test_both_layouts_are_recorded():
    assert {case.values[0].retriever().attends_over_batch for case in PHP} == {False, True}


@pytest.mark.parametrize("case", PHP)
def test_php(case: Case):
    check_system(case, lambda: retriever(case))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", PHP)
def test_features_of_every_variant_from_a_published_checkpoint(case: Case, variant: str):
    wrong_sizes = {"cnum": 2, "num_experts": 3, "reduction": 2, "moe_layers": 1}
    options = dataclasses.replace(case.options.get(ParsingOptions), php_variant=variant, **wrong_sizes)
    saved = {f"module.{key}": value for key, value in case.part("model").items()}
    assert has_published_parsing(saved)
    state, unknown = our_names(saved)
    model, unused = restore_encoder(state, case.options.get(BackboneOptions), "best.pth", parsing_options=options)
    assert not unknown
    assert bool(unused) == (variant != "full")
    check_features(case, model, VARIANTS[variant])


@pytest.mark.parametrize("case", PHP)
def test_counters_of_a_published_checkpoint_are_read(case: Case):
    saved = dict(case.part("model"))
    experts = len(saved["shared_transformer.resblocks.0.feed_forward.expert_count_accum"])
    saved["shared_transformer.resblocks.1.feed_forward.expert_count_accum"] = torch.arange(1, experts + 1)
    state, _ = our_names(saved)
    parsing = case.options.get(ParsingOptions)
    model, _ = restore_encoder(state, case.options.get(BackboneOptions), "best.pth", parsing_options=parsing)
    assert model.expert_use()["training"][1].tolist() == list(range(1, experts + 1))
