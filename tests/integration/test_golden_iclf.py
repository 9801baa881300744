"""Parity of ICLF with what its published program computes, for every ``iclf*`` case below ``$GOLDEN_DIR``."""

import pytest
import torch

from model.checkpoints.published import our_names
from model.matcher import restore_matcher
from tests.helpers.golden import Case, systems
from tests.integration.test_golden import check_system

ICLF = [pytest.param(case, id=case.folder.name) for case in systems("iclf")]


@pytest.fixture(autouse=True)
def likeliest_negative(monkeypatch):
    """The recorded program took the hardest negative, where training draws one."""
    monkeypatch.setattr(torch, "multinomial", lambda weights, samples: weights.argmax(dim=1, keepdim=True))


@pytest.mark.parametrize("case", ICLF)
def test_iclf(case: Case):
    check_system(case, case.retriever)


@pytest.mark.parametrize("case", ICLF)
def test_the_matcher_of_a_published_checkpoint_is_the_one_of_training(case: Case):
    published = {f"module.{key}": value for key, value in case.part("model").items()}
    state, unknown = our_names({**published, "module.text_encoder.pooler.dense.weight": torch.zeros(2, 2)})
    model, batch = case.retriever(), case.batch()
    matcher, used = restore_matcher(state, model.clip.sizes.embed_dim, "best.pth")
    assert not unknown and {key.split(".")[1] for key in used} == {"cross_former", "itm"}
    with torch.no_grad():
        text, image = model.encode_text(batch["caption_ids"]).tokens, model.encode_image(batch["images"]).tokens
        logits = model.heads["itm"].match(model.parts["cross_former"], text, image)
        torch.testing.assert_close(matcher(text, image), logits[:, 1] - logits[:, 0])
