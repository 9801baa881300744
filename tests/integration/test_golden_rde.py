"""What RDE's recorded cases hold beside losses and features: chosen tokens, losses per pair, the division of pairs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.adapters.token_selection import TokenSelection
from model.division import SETTINGS, consensus, is_clean, published_fit, split
from model.losses import HEADS
from model.losses.base import Sizes
from model.losses.hinge import HingeOptions
from model.losses.pairwise import PairwiseLoss
from tests.helpers.golden import Case, params
from utils.options import flag_names

KINDS = {"TAL": "TAL", "TRL": "TRL", "InfoNCE": "itc", "SDM": "sdm"}
"""published names of the losses to ours"""
pytestmark = pytest.mark.parametrize("case", [param for param in params("rde") if param.id.endswith("_eval")])


def head(case: Case, name: str) -> PairwiseLoss:
    group = HEADS[name].Options
    flags = {flag: getattr(case.options.get(HingeOptions), flag) for flag in ("tau", "margin")}
    known = {"temperature": 0.02, **flags}
    for flag, value in zip(case.json["argv"], case.json["argv"][1:], strict=False):
        if flag == "--temperature":
            known["temperature"] = float(value)
    return HEADS[name](
        group(**{key: value for key, value in known.items() if key in flag_names(group)}), Sizes(8, 9, 3, 9, 9)
    )


def of_pairs(loss: PairwiseLoss, image: Tensor, text: Tensor, pids: Tensor) -> Tensor:
    return loss.of_pairs(image.float(), text.float(), pids)


@pytest.mark.parametrize("published", KINDS)
def test_the_loss_of_every_pair(case: Case, published: str):
    loss, pids = head(case, KINDS[published]), case.batch()["pids"]
    for side, suffix in (("bge", ""), ("tse", "_tse")):
        image, text = (case.tensors[f"out/{kind}_features{suffix}"] for kind in ("image", "text"))
        recorded = case.tensors[f"out/per_loss/{published}_{side}"]
        torch.testing.assert_close(of_pairs(loss, image, text, pids), recorded, atol=1e-4, rtol=1e-4)
    extra = case.part("extra")
    ours = of_pairs(loss, extra["image_features"], extra["text_features"], extra["pids"])
    torch.testing.assert_close(ours, extra[f"per_loss/{published}"], atol=1e-5, rtol=1e-4)


def test_attention_and_chosen_tokens(case: Case):
    model, batch = case.retriever().eval(), case.batch()
    selection: TokenSelection = model.token_selection
    with torch.no_grad():
        image = model.encode_image(batch["images"])
        text = model.encode_text(batch["caption_ids"], batch["caption_ids_lengths"])
    torch.testing.assert_close(image.attention, case.tensors["out/image_attention"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(text.attention, case.tensors["out/text_attention"], atol=1e-5, rtol=1e-4)
    assert torch.equal(selection.image_choice(image.attention), case.tensors["out/image_selected"])
    chosen, counts = selection.text_choice(text.attention, batch["caption_ids_lengths"])
    recorded = case.tensors["out/text_selected"]
    assert chosen.shape == recorded.shape and counts.any(dim=1).all()
    assert torch.equal(chosen[counts], recorded[counts])
    for name, ours in (("image", image), ("text", text)):
        recorded = F.normalize(case.tensors[f"out/{name}_features_tse"], dim=-1)
        torch.testing.assert_close(F.normalize(ours.selected, dim=-1), recorded, atol=1e-4, rtol=0)


def test_the_cosine_of_both_embeddings_side_by_side_is_the_mean(case: Case):
    model, batch = case.retriever().eval(), case.batch()
    with torch.no_grad():
        image = F.normalize(model.encode_image(batch["images"]).feature, dim=-1)
        text = F.normalize(model.encode_text(batch["caption_ids"], batch["caption_ids_lengths"]).feature, dim=-1)
    torch.testing.assert_close(text @ image.T, case.tensors["out/similarity"], atol=1e-4, rtol=0)


def test_statistics_of_the_batch(case: Case):
    case = Case(case.folder)  # the other mode
    model, recorded = case.retriever().train(), case.part("out/after_step1")
    _, views = model(case.batch())
    names = {"visul_emb_layer": "image", "texual_emb_layer": "text"}
    for key, value in recorded.items():
        ours = model.get_buffer(f"token_selection.{names[key.split('.')[0]]}.norm.{key.split('.')[-1]}")
        torch.testing.assert_close(ours, value, atol=1e-5, rtol=1e-4, check_dtype=False, msg=key)
    for name, encoded in (("image", views.image()), ("text", views.text())):
        recorded = F.normalize(case.tensors[f"out/train/{name}_features_tse"], dim=-1)
        torch.testing.assert_close(F.normalize(encoded.selected.detach(), dim=-1), recorded, atol=1e-4, rtol=0)


def test_division(case: Case):
    for name, facts in case.json["ccd"].items():
        fit = SETTINGS[published_fit(facts["noisy_rate"], facts["dataset_name"])]
        assert {key: facts["gmm"][key] for key in fit._fields} == fit._asdict()
        recorded, rng = case.part(name), np.random.RandomState(facts["numpy_seed"])
        parts = [split(recorded[f"loss_{side}"].numpy(), fit, rng) for side in ("bge", "tse")]
        for side, part in zip(("bge", "tse"), parts, strict=True):
            recorded_N = recorded[f"clean_probability_{side}"].numpy()
            np.testing.assert_allclose(part.probability_N, recorded_N, atol=2e-3)
            assert np.array_equal(part.clean_N, recorded[f"is_clean_{side}"].numpy().astype(bool))
        coin = torch.Generator().manual_seed(facts["torch_seed"])
        labels_N = consensus([part.clean_N for part in parts], coin)
        assert np.array_equal(labels_N, recorded["label_hat"].numpy().astype(bool))  # the coins as well


def test_threshold_where_all_look_clean(case: Case):
    for each in case.json["ccd_split"]:
        ours = is_clean(np.array(each["clean_probability"]))
        recorded = next(value for key, value in each.items() if key != "clean_probability")
        assert np.array_equal(ours, np.array(recorded, bool))
