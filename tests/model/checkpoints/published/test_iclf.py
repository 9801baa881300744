"""Published ICLF checkpoints: which keys are its matching head, and which its unused BERT."""

import pytest
import torch

from model.checkpoints.published import our_names

TENSOR = torch.zeros(2)
TEMPERATURE = torch.tensor(0.07)


def test_the_temperature_beside_a_matching_head_is_itms():
    head = {"module.itm_head.0.weight": TENSOR, "module.itm_head.3.bias": TENSOR}
    ours, unknown = our_names({"module.temp": TEMPERATURE, "module.base_model.visual.proj": TENSOR, **head})
    assert set(ours) == {"clip.visual.proj", "heads.itm.temp", "heads.itm.head.0.weight", "heads.itm.head.3.bias"}
    assert not unknown


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_temperature_of_another_program_stays_unknown(prefix: str):
    """As in ALBEF's and many others' checkpoints, where it is a contrastive loss's."""
    ours, unknown = our_names({f"{prefix}temp": TEMPERATURE, "base_model.visual.proj": TENSOR})
    assert set(ours) == {"clip.visual.proj"}
    assert unknown == [f"{prefix}temp"]


def test_our_own_temperature_is_kept():
    ours, unknown = our_names({"heads.itm.temp": TEMPERATURE, "clip.visual.proj": TENSOR})
    assert set(ours) == {"heads.itm.temp", "clip.visual.proj"} and not unknown


def test_bert_is_left_out_by_name_only_beside_base_model():
    bert = {
        "text_encoder.embeddings.word_embeddings.weight": TENSOR,
        "module.text_encoder.encoder.layer.0.attention.self.query.weight": TENSOR,
        "text_feats_2_bert.weight": TENSOR,
    }
    ours, unknown = our_names({"module.base_model.visual.proj": TENSOR, **bert})
    assert set(ours) == {"clip.visual.proj"} and not unknown
    tower = {"text_encoder.positional_embedding": TENSOR, "image_encoder.proj": TENSOR}
    known, left = our_names(tower)
    assert len(known) + len(left) == 2, "without base_model, text_encoder is the text tower and must not be dropped"
