"""Parity with what the published programs compute, for every case below ``$GOLDEN_DIR``."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import test as test_script
from datasets.augmentation import eval_view
from model.backbones.clip import load_clip
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID, Tokenizer
from model.backbones.spec import BackboneOptions
from model.build import LossOptions
from processor.metrics.ranks import rank_similarity, summarise
from solver.optimizer import SolverOptions, build_optimizer
from solver.schedule import ScheduleOptions, learning_rate
from tests.helpers.golden import GOLDEN_DIR, Case, cores, systems

IRRA = [pytest.param(case, id=case.folder.name) for case in systems("irra")]
CORES = [pytest.param(folder, id=folder.name) for folder in cores()]


@pytest.mark.skipif("GOLDEN_DIR" in os.environ, reason="another $GOLDEN_DIR may hold any cases")
def test_there_are_cases_of_everything():
    assert cores()
    for system in ("irra", "dgcmia", "php", "eccl", "iclf"):
        assert systems(system), system


def check_losses(report: dict[str, torch.Tensor], recorded: dict[str, float], names: dict[str, str]) -> None:
    """Compare every recorded value that has a name of ours; ``names`` translates the others."""
    for name, value in recorded.items():
        ours = names.get(name, name)
        if ours:
            assert report[ours].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name


def check_gradients(case: Case, model: torch.nn.Module) -> None:
    recorded = case.by_our_names(case.json["grad_norms"])
    ours = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert set(recorded) <= set(ours)
    for name, norm in recorded.items():
        stacked = isinstance(norm, list)  # modules that published programs keep one by one
        value = model.get_parameter(name).grad.flatten(1).norm(dim=1).tolist() if stacked else ours[name]
        assert value == pytest.approx(norm, rel=1e-3, abs=1e-5), name


def check_features(case: Case, model: torch.nn.Module, field: str = "") -> None:
    batch = case.batch()
    model.eval()
    with torch.no_grad():
        image, text = model.encode_image(batch["images"]).pooled, model.encode_text(batch["caption_ids"]).pooled
    for ours, name in ((image, f"image_features{field}"), (text, f"text_features{field}")):
        recorded = F.normalize(case.tensors[f"out/{name}"], dim=-1)
        torch.testing.assert_close(F.normalize(ours, dim=-1), recorded, atol=1e-4, rtol=0, msg=lambda m, n=name: n + m)


def check_optimizer(case: Case, model: torch.nn.Module) -> None:
    optimizer = build_optimizer(model.parameter_roles(), case.options.get(SolverOptions))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ours = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    recorded = case.by_our_names(case.json["optimizer_lr_and_weight_decay"])
    assert set(recorded) == set(ours)
    for name, values in recorded.items():
        for row in torch.tensor(values, dtype=torch.float64).view(-1, 2).tolist():
            assert ours[name] == pytest.approx(row), name
    for key, value in case.json["optimizer_defaults"].items():
        if key not in ("lr", "weight_decay"):  # every group has its own
            assert optimizer.defaults[key] == pytest.approx(value), key


def check_trajectory(case: Case, model: torch.nn.Module, epoch: int = 1, prefix: str = "batch") -> None:
    recorded = case.json["trajectory"]
    rates = {name: recorded[name] for name in ("lr", "lora_lr") if recorded.get(name) is not None}
    optimizer = build_optimizer(model.parameter_roles(), dataclasses.replace(case.options.get(SolverOptions), **rates))
    batch = case.batch(prefix)
    model.train()
    for number, value in enumerate(recorded["total_loss_before_each_step"]):
        step, views = model(batch, epoch)
        tolerance = 1e-3 * 10 ** (number / 4)
        assert step.loss.item() == pytest.approx(value, rel=tolerance), f"step {number + 1}"
        optimizer.zero_grad()
        step.loss.backward()
        model.after_backward(views)
        optimizer.step()


def check_system(case: Case, build: Callable[[], torch.nn.Module]) -> None:
    """Everything that is recorded of a system without memories; ``build`` gives a fresh model each time."""
    model = build().train()
    step, _ = model(case.batch())
    check_losses(step.report, case.json["losses"]["step1"], {"temperature": ""})
    assert step.loss.item() == pytest.approx(case.json["trajectory"]["total_loss_before_each_step"][0], rel=1e-4)
    step.loss.backward()
    check_gradients(case, model)
    check_optimizer(case, model)
    check_features(case, model)
    check_trajectory(case, build())


@pytest.mark.parametrize("case", IRRA)
def test_irra(case: Case):
    check_system(case, case.retriever)


@pytest.mark.parametrize("case", IRRA)
def test_irra_starts_from_its_clip_archive(case: Case):
    if not (case.folder / "clip.pt").exists():
        pytest.skip("this case has no clip.pt")
    backbone = dataclasses.replace(case.options.get(BackboneOptions), pretrain_choice=str(case.folder / "clip.pt"))
    clip, trained = load_clip(backbone), case.retriever().clip
    for name, value in clip.state_dict().items():
        torch.testing.assert_close(value, trained.state_dict()[name], atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("path", sorted(GOLDEN_DIR.glob("*/configs.yaml")), ids=lambda path: path.parent.name)
def test_published_configs_are_read_by_test_py(path: Path):
    options = test_script.read_flags(["--config_file", str(path)])
    recorded = json.loads((path.parent / "golden.json").read_text())
    assert options.get(BackboneOptions).img_size == tuple(recorded["img_size"])
    names = [recorded["argv"][n + 1] for n, word in enumerate(recorded["argv"]) if word == "--loss_names"]
    assert [options.get(LossOptions).loss_names] == names


@pytest.mark.parametrize("folder", CORES)
def test_metrics(folder: Path):
    tensors = load_file(folder / "core.safetensors")
    for number, recorded in enumerate(json.loads((folder / "core.json").read_text())["metrics"]):
        similarity = tensors[f"metrics{number}/similarity"]
        query, gallery = tensors[f"metrics{number}/query_pids"], tensors[f"metrics{number}/gallery_pids"]
        described = torch.isin(gallery, query)
        ours = {
            "t2i": summarise(rank_similarity(similarity, query, gallery)),
            "i2t_over_gallery_images_that_have_a_caption": summarise(
                rank_similarity(similarity.T[described], gallery[described], query)
            ),
        }
        for task, values in recorded.items():
            assert {name: ours[task][name] for name in values} == pytest.approx(values, abs=1e-3), task


@pytest.mark.parametrize("folder", CORES)
def test_tokenizer(folder: Path):
    core = json.loads((folder / "core.json").read_text())
    specials = {"<|startoftext|>": START_ID, "<|endoftext|>": END_ID, "<|mask|>": MASK_ID}
    assert core["special_tokens"] == specials
    tokenizer = Tokenizer()
    for entry in core["tokenizer"]:
        ids = tokenizer(entry["caption"])[0].tolist()
        assert ids[: len(entry["ids"])] == entry["ids"], entry["caption"]
        assert not any(ids[len(entry["ids"]) :]), entry["caption"]


@pytest.mark.parametrize("folder", CORES)
def test_schedules(folder: Path):
    recorded = json.loads((folder / "core.json").read_text())["lr_schedule"]
    for name, rates in recorded["lr_in_epoch_1_to_20"].items():
        shape, warmup = name.split("/")
        options = ScheduleOptions(
            num_epoch=recorded["total_epochs"],
            lrscheduler=shape,
            warmup_method=warmup,
            **{key: recorded[key] for key in ("warmup_epochs", "warmup_factor", "target_lr", "power", "gamma")},
            milestones=tuple(recorded["milestones"]),
        )
        ours = [learning_rate(recorded["base_lr"], epoch, options) for epoch in range(1, len(rates) + 1)]
        assert ours == pytest.approx(rates, rel=1e-6), name


@pytest.mark.parametrize("folder", CORES)
def test_eval_view(folder: Path, tmp_path: Path):
    from PIL import Image

    from datasets.images.decode import load_resized

    tensors = load_file(folder / "core.safetensors")
    names = sorted({key.split("/")[0] for key in tensors if key.startswith("transform")})
    assert names
    for name in names:
        recorded = tensors[f"{name}/out"]
        file = tmp_path / f"{name}.png"  # lossless
        Image.fromarray(tensors[f"{name}/image_uint8_hwc"].numpy()).save(file)
        pixels = torch.from_numpy(load_resized(file, tuple(recorded.shape[1:])))
        torch.testing.assert_close(eval_view(pixels[None])[0], recorded, atol=1e-4, rtol=0)
