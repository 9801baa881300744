"""Parity with the published ECCL program, for every ``eccl`` case below ``$GOLDEN_DIR``."""

import pytest
import torch

from model.backbones.clip import CLIP, at_resolution, sizes_of
from model.backbones.spec import BackboneOptions
from model.build import LossOptions, TrainCounts, build_retriever, momentum_flag
from model.checkpoints.archives import load_strict
from model.checkpoints.published import our_names
from model.retriever import Retriever
from tests.helpers.golden import Case, systems
from tests.integration.test_golden import (
    check_features,
    check_gradients,
    check_losses,
    check_optimizer,
    check_trajectory,
)

BANKS = {
    "image_memory": "memory.bank.image",
    "text_memory": "memory.bank.text",
    "instance_image_memory": "instance_memory.bank.image",
    "instance_text_memory": "instance_memory.bank.text",
    "instance_pids": "instance_memory.row_pids",
}
"""recorded names to ours"""


class EcclCase(Case):
    """A case with banks, and with LoRA that is not merged into the recorded weights."""

    @property
    def options(self):
        options = super().options
        return options.moved("momentum", momentum_flag(options.get(LossOptions).loss_names))

    def retriever(self) -> Retriever:
        state, unknown = our_names(self.part("model"), lora_is_merged=False)
        assert not unknown
        clip = CLIP(at_resolution(sizes_of(state, "clip."), self.options.get(BackboneOptions)))
        train = TrainCounts(self.json["num_classes"], 0, len(self.tensors["start/instance_pids"]))
        names = self.options.get(LossOptions).loss_names
        model = build_retriever(clip, names, self.options.get, train)
        banks = {f"heads.{BANKS[name]}": value for name, value in self.part("start").items()}
        load_strict(model, {**state, **{key: value for key, value in banks.items() if key in model.state_dict()}}, "")
        return model

    def by_our_names(self, table):
        """LoRA's q, k and v are one parameter here: its gradient has the norm of the three together."""
        fused = {}
        for key, value in table.items():
            ours = key.replace("image_encoder.", "clip.visual.").replace("text_encoder.", "clip.text.")
            for part in "qkv":
                ours = ours.replace(f"attn.lora_A_{part}", "attn.in_proj.lora_A")
                ours = ours.replace(f"attn.lora_B_{part}", "attn.in_proj.lora_B")
            ours = ours.replace("attn.lora_A_o", "attn.out_proj.lora_A").replace(
                "attn.lora_B_o", "attn.out_proj.lora_B"
            )
            if "prompt_learner" in ours:
                (ours,) = our_names({"image_encoder.proj": torch.zeros(1), key: torch.zeros(1)})[0].keys() - {
                    "clip.visual.proj"
                }
            fused.setdefault(ours, []).append(value)
        return {
            key: values[0] if isinstance(values[0], list) else torch.tensor(values).norm().item()
            for key, values in fused.items()
        }


ECCL = [pytest.param(EcclCase(case.folder), id=case.folder.name) for case in systems("eccl")]


def check_banks(case: Case, model: torch.nn.Module) -> None:
    state = model.heads.state_dict()
    for name, recorded in case.part("out/after_backward").items():
        torch.testing.assert_close(state[BANKS[name]], recorded, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", ECCL)
def test_eccl(case: EcclCase):
    model = case.retriever().train()
    step, views = model(case.batch())
    check_losses(step.report, case.json["losses"]["step1"], {"temperature": ""})
    step.loss.backward()
    model.after_backward(views)
    check_gradients(case, model)
    check_banks(case, model)
    check_optimizer(case, model)
    check_features(case, model)
    check_trajectory(case, case.retriever())
