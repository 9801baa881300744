"""Recorded numbers of the published programs: one object per sub-folder of ``$GOLDEN_DIR``."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from model.backbones.clip import CLIP, at_resolution, sizes_of
from model.backbones.spec import BackboneOptions
from model.build import LossOptions, TrainCounts, build_retriever, model_groups
from model.checkpoints.archives import load_strict
from model.checkpoints.published import our_names
from model.retriever import Retriever
from solver.optimizer import SolverOptions
from utils.command import parse
from utils.options import Options

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
NOT_OURS = {
    "MLM": "the batch is recorded",
    "vocab_size": "read off the weights",
    "batch_size": "the batch is recorded",
    "ndata": "rows of the bank",
}


@dataclass(frozen=True)
class Case:
    """One recorded run of a published program."""

    folder: Path

    @cached_property
    def json(self) -> dict:
        return json.loads((self.folder / "golden.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / "golden.safetensors")

    @cached_property
    def options(self) -> Options:
        argv = [*self.json["argv"], "--img_size", *map(str, self.json["img_size"])]
        if "batch_axis" in " ".join([self.folder.name, *argv]):  # recorded nowhere else
            argv += ["--php_attention", "batch"]
        return parse({**model_groups(), "solver": [SolverOptions]}, argv, "golden", NOT_OURS)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below a prefix, without it, in float32 or int64."""
        found = {key[len(prefix) + 1 :]: v for key, v in self.tensors.items() if key.startswith(prefix + "/")}
        return {key: v.float() if v.is_floating_point() else v for key, v in found.items()}

    def batch(self, prefix: str = "batch") -> dict[str, Tensor]:
        """The recorded batch with the one field that our loader adds."""
        batch = self.part(prefix)
        if "mlm_labels" in batch:
            batch["mlm_positions"] = batch["mlm_labels"].flatten().nonzero().squeeze(1)
        return batch

    def retriever(self) -> Retriever:
        """Our model with the recorded weights."""
        state, unknown = our_names(self.part("model"))
        assert not unknown, f"{self.folder.name}: no name of ours for {unknown}"
        backbone = self.options.get(BackboneOptions)
        clip = CLIP(at_resolution(sizes_of(state, "clip."), backbone))
        pairs = len(state.get("heads.memory_soft.image_bank", ()))
        train = TrainCounts(self.json["num_classes"], pairs, 0)
        model = build_retriever(clip, self.options.get(LossOptions).loss_names, self.options.get, train)
        load_strict(model, state, self.folder.name)
        return model

    def by_our_names(self, table: dict[str, object]) -> dict[str, list[float]]:
        """A table by published parameter names, by ours."""
        renamed, unknown = our_names({key: torch.tensor(value, dtype=torch.float64) for key, value in table.items()})
        assert not unknown
        return {key: value.tolist() for key, value in renamed.items()}


def systems(name: str) -> list[Case]:
    """Every case of a system."""
    cases = [Case(path.parent) for path in sorted(GOLDEN_DIR.glob("*/golden.json"))]
    return [case for case in cases if case.json["system"] == name]


def cores() -> list[Path]:
    """Folders with recorded metrics, tokens, schedules and image transforms."""
    return [path.parent for path in sorted(GOLDEN_DIR.glob("*/core.json"))]
