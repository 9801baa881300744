"""Recorded numbers of the published programs: a case per sub-folder of ``$GOLDEN_DIR``, and how to compare with one.

Everything is taken from a case's files. A case may be of any size, with any of the losses that we have.
"""

import dataclasses
import functools
import json
import os
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import train
from datasets.batches.fields import TEXT_FIELDS
from model.backbones.clip import CLIP
from model.backbones.spec import BackboneOptions
from model.build import LossOptions, build_retriever
from model.checkpoints.archives import load_strict
from model.checkpoints.published import has_published_parsing, our_names
from model.checkpoints.published.eccl import is_eccl
from model.losses.nitc import NITCOptions
from model.retriever import Retriever, Step
from solver.optimizer import SolverOptions, build_optimizer
from utils.device import Precision
from utils.options import Options

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
DEVICE = torch.device(os.environ.get("GOLDEN_DEVICE", "cpu"))
"""where models and batches are; what was recorded stays on the CPU"""
SYSTEMS = ("irra", "dgcmia", "php", "eccl", "iclf", "rde", "tbps_clip")
NORMS = {"": "batch", "_eval": "frozen"}
"""suffix of what an RDE case recorded to ``--tse_norm``"""
BANKS = {
    "img_memory": "heads.memory_soft.image_bank",
    "txt_memory": "heads.memory_soft.text_bank",
    "image_memory": "heads.memory.bank.image",
    "text_memory": "heads.memory.bank.text",
    "instance_image_memory": "heads.instance_memory.bank.image",
    "instance_text_memory": "heads.instance_memory.bank.text",
    "instance_pids": "heads.instance_memory.row_pids",
}
"""recorded names of memories to ours"""
VIEWS = {"aug1": "images_mvs", "aug_ss_1": "images_ss1", "aug_ss_2": "images_ss2"}
"""recorded names of image views to ours"""
ALWAYS_PARSES = ["--php_variant", "full", "--itc_loss_weight", "5", "--mlm_loss_weight", "0.5"]
"""what the published PHP does with any losses, and our flags only with the loss aux"""


class Moment(NamedTuple):
    """One recorded training step."""

    name: str
    batch: str
    epoch: int
    before: str
    """where the memories before the step are"""
    after: str
    """where the memories after the step are"""


MOMENTS = (
    Moment("step1", "batch", 1, "start", "out/after_backward"),
    Moment("epoch1", "batch", 1, "start", "out/epoch1"),
    Moment("epoch2", "batch2", 2, "epoch2_start", "out/epoch2"),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One recorded run of a published program."""

    folder: Path
    mode: str = ""
    """suffix of the recorded names of training, where there are several modes of it"""
    precision: Precision = Precision(DEVICE, torch.float32)

    def at(self, precision: Precision) -> "Case":
        """The same run on another device or in other arithmetic."""
        other = dataclasses.replace(self, precision=precision)
        other.__dict__["options"] = self.options  # which for PHP take features in float32 to find
        return other

    @property
    def name(self) -> str:
        return self.folder.name + self.mode

    @cached_property
    def json(self) -> dict:
        return json.loads((self.folder / "golden.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / "golden.safetensors")

    @cached_property
    def options(self) -> Options:
        if self.json["system"] == "tbps_clip":
            return train.read_flags(["--config_file", str(self.folder / "configs.yaml")])
        if self.json["system"] == "rde":
            return self._flags("--tse_norm", NORMS[self.mode])
        if not has_published_parsing(self.part("model")):
            return self._flags()
        for attention in ("tokens", "batch"):  # which of them the program had is recorded in its features only
            options = self._flags("--php_attention", attention)
            ours = pooled_features(self._retriever(options, ""), self.batch())[0]
            if torch.allclose(F.normalize(ours, dim=-1), self.features("image"), atol=1e-4, rtol=0):
                return options
        raise AssertionError(f"{self.folder.name}: no --php_attention gives the recorded image features")

    def _flags(self, *more: str) -> Options:
        argv = [*self.json["argv"], "--img_size", *map(str, self.json["img_size"]), *more]
        options = train.read_flags(argv)
        if "--php_attention" in more and "aux" not in options.get(LossOptions).names:
            options = train.read_flags([*ALWAYS_PARSES, *argv])
        return options

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the losses."""
        return self.options.get(LossOptions).names

    @property
    def moments(self) -> list[Moment]:
        """The recorded training steps. Gradients and the trajectory belong to the last one."""
        assert set(self.json["losses"]) <= {moment.name + mode for moment in MOMENTS for mode in NORMS}
        return [moment for moment in MOMENTS if moment.name + self.mode in self.json["losses"]]

    def training(self, what: str) -> dict:
        """A recorded table of training in this mode: grad_norms, trajectory."""
        return self.json[what + self.mode]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below a prefix, without it, in float32 or int64."""
        found = {key[len(prefix) + 1 :]: v for key, v in self.tensors.items() if key.startswith(prefix + "/")}
        return {key: v.float() if v.is_floating_point() else v for key, v in found.items()}

    @property
    def epoch_share(self) -> float:
        """How much of the epoch was done in a recorded step, which TBPS-CLIP's soft labels depend on."""
        ratio = self.options.get(NITCOptions).softlabel_ratio
        return self.json["alpha"] / ratio if self.json.get("alpha") else 0.0

    def batch(self, name: str = "batch") -> dict[str, Tensor]:
        """A recorded batch, with the fields that our loader adds or calls otherwise."""
        batch = {VIEWS.get(field, field): value for field, value in self.part(name).items()}
        if "mlm_labels" in batch:
            batch["mlm_positions"] = batch["mlm_labels"].flatten().nonzero().squeeze(1)
        if "mlm_ids" in batch:
            batch.setdefault("caption_ids_aug", batch["mlm_ids"])
        for field in TEXT_FIELDS:
            if field in batch:  # the end token has the largest id
                batch[f"{field}_lengths"] = batch[field].argmax(dim=1) + 1
        return {name: value.to(self.precision.device) for name, value in batch.items()}

    def features(self, kind: str, variant: str = "") -> Tensor:
        """Recorded features of unit length; ``kind``: image or text. RDE's are both embeddings side by side."""
        feature = F.normalize(self.tensors[f"out/{kind}_features{variant}"], dim=-1)
        second = self.tensors.get(f"out/{kind}_features{variant}_tse")
        return feature if second is None else F.normalize(torch.cat([feature, F.normalize(second, dim=-1)], -1), dim=-1)

    def banks(self, prefix: str) -> dict[str, Tensor]:
        """Recorded memories below a prefix, by our names."""
        return {BANKS[name]: value for name, value in self.part(prefix).items()} if prefix else {}

    def retriever(self, banks: str = "start") -> Retriever:
        """Our model as recorded: its weights, the memories below a prefix, and no dropout."""
        return self._retriever(self.options, banks)

    def _retriever(self, options: Options, banks: str) -> Retriever:
        state, unknown = our_names(self.part("model"), lora_is_merged=False)
        assert not unknown, f"{self.folder.name}: no name of ours for {unknown}"
        state |= self.banks(banks)
        towers = {key.removeprefix("clip."): value for key, value in state.items() if key.startswith("clip.")}
        clip = CLIP.from_state(towers, options.get(BackboneOptions), self.folder.name)
        pairs, images = (len(state.get(BANKS[name], ())) for name in ("img_memory", "instance_pids"))
        labels = self.part("batch").get("label_hat")
        if labels is not None:
            pairs = int(self.batch()["index"].max()) + 1
        model = build_retriever(clip, options.get, self.json["num_classes"], images, pairs, self.precision)
        if labels is not None:
            model.division.clean[self.batch()["index"]] = labels.bool().to(self.precision.device)
        load_strict(model, {key: value for key, value in state.items() if is_part(model, key)}, self.folder.name)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model

    def by_our_names(self, table: dict[str, float | list[float]]) -> dict[str, Tensor]:
        """A table by published parameter names, by ours: (layers, columns); some of our layers are several there."""
        rows = {key: torch.tensor(value).view(-1) for key, value in table.items()}
        columns = max(map(len, rows.values()))
        marks = ["image_encoder.proj"] if is_eccl(self.part("model")) else []  # which its translation looks for
        ours, unknown = our_names({**dict.fromkeys(marks, torch.zeros(columns)), **rows}, lora_is_merged=False)
        assert not unknown
        return {key: value.view(-1, columns) for key, value in ours.items() if key != "clip.visual.proj" or not marks}


@functools.cache
def cases(*systems: str) -> list[Case]:
    """Every case of some systems, or of all that we have."""
    found = [Case(path.parent) for path in sorted(GOLDEN_DIR.glob("*/golden.json"))]
    known = [case for case in found if case.json["system"] in (systems or SYSTEMS)]
    return [Case(case.folder, mode) for case in known for mode in (NORMS if case.json["system"] == "rde" else [""])]


def params(*systems: str) -> list:
    """:func:`cases` for ``pytest.mark.parametrize``."""
    return [pytest.param(case, id=case.name) for case in cases(*systems)]


def core_params() -> list:
    """Folders with recorded metrics, tokens, schedules and image transforms, for ``pytest.mark.parametrize``."""
    return [pytest.param(path.parent, id=path.parent.name) for path in sorted(GOLDEN_DIR.glob("*/core.json"))]


def is_part(model: Retriever, key: str) -> bool:
    """Whether a name of ours belongs to the model; a published program may carry layers that its losses do not read."""
    root, _, rest = key.partition(".")
    return root == "clip" or f"{root}.{rest.partition('.')[0]}" in dict(model.named_modules())


def pooled_features(model: Retriever, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Features of images and captions, as in evaluation."""
    model.eval()
    with torch.no_grad():
        texts = model.encode_text(batch["caption_ids"], batch["caption_ids_lengths"])
        return model.encode_image(batch["images"]).feature.cpu(), texts.feature.cpu()


def check_losses(case: Case, moment: Moment, step: Step) -> None:
    """Compare every recorded value."""
    names = {"mem_loss": "memory_soft_loss", "img_acc": "id_img_acc", "txt_acc": "id_txt_acc"}
    if "itc1" in case.losses:
        names["sdm_loss"] = "itc1_loss"
    if case.json["system"] == "rde":
        names |= {f"{side}_loss": f"{case.losses[0]}_{side}" for side in ("bge", "tse")}
    for name, value in case.json["losses"][moment.name + case.mode].items():
        if name != "temperature":  # the inverse of a flag
            assert step.report[names.get(name, name)].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name


def check_gradients(case: Case, model: Retriever) -> None:
    for name, rows in case.by_our_names(case.training("grad_norms")).items():
        if is_part(model, name):
            parameter = model.get_parameter(name)
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            norms = grad.reshape(len(rows), -1).norm(dim=1)
            assert norms.tolist() == pytest.approx(rows.flatten().tolist(), rel=1e-3, abs=1e-5), name
        else:
            assert not rows.any(), f"{name} is trained there"


def check_banks(case: Case, model: Retriever, prefix: str) -> None:
    ours = model.state_dict()
    for name, recorded in case.banks(prefix).items():
        if is_part(model, name):
            features = "memory_soft" in name  # of any length; the other memories have unit rows
            tolerance = {"atol": 1e-4, "rtol": 1e-4} if features else {"atol": 1e-5, "rtol": 0}
            torch.testing.assert_close(ours[name].cpu(), recorded, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def check_features(case: Case, model: Retriever, variant: str = "") -> None:
    for kind, ours in zip(("image", "text"), pooled_features(model, case.batch()), strict=True):
        recorded = case.features(kind, variant)
        torch.testing.assert_close(F.normalize(ours, dim=-1), recorded, atol=1e-4, rtol=0, msg=lambda m, n=kind: n + m)


def check_optimizer(case: Case, model: Retriever) -> None:
    optimizer = build_optimizer(model.parameter_roles(), case.options.get(SolverOptions))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ours = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    recorded = case.by_our_names(case.json["optimizer_lr_and_weight_decay"])
    assert {name for name in recorded if is_part(model, name)} == set(ours)
    for name, values in ours.items():
        for row in recorded[name].tolist():
            assert values == pytest.approx(row), name
    for key, value in case.json["optimizer_defaults"].items():
        if key not in ("lr", "weight_decay"):  # every group has its own
            assert optimizer.defaults[key] == pytest.approx(value), key


def check_trajectory(case: Case) -> Retriever:
    """Compare the loss before every step; the model after the last one."""
    recorded, moment = case.training("trajectory"), case.moments[-1]
    rates = {name: recorded[name] for name in ("lr", "lora_lr") if recorded.get(name) is not None}
    model, batch = case.retriever(moment.before).train(), case.batch(moment.batch)
    optimizer = build_optimizer(model.parameter_roles(), dataclasses.replace(case.options.get(SolverOptions), **rates))
    for number, value in enumerate(recorded["total_loss_before_each_step"]):
        step, views = model(batch, moment.epoch, case.epoch_share)
        tolerance = 1e-3 * 10 ** (number / 4) if number else 1e-4
        assert step.loss.item() == pytest.approx(value, rel=tolerance), f"step {number + 1}"
        optimizer.zero_grad()
        step.loss.backward()
        model.after_step(views)
        optimizer.step()
    return model
