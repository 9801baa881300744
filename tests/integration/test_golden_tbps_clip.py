"""What TBPS-CLIP's recorded cases hold beside losses and features: scale, soft labels, schedule, captions, views."""

import dataclasses

import pytest
import torch
from PIL import Image

from datasets.augmentation.pixels import normalise
from datasets.images.decode import load_resized
from model.backbones.text_cleaning import CleanedTokenizer, cleaned
from model.losses.nitc import NITCOptions, soft_share
from solver.optimizer import SolverOptions, build_optimizer
from solver.schedule import Schedule, ScheduleOptions, learning_rate_of_step
from tests.helpers.golden import Case, check_trajectory, params

pytestmark = pytest.mark.parametrize("case", params("tbps_clip"))


def test_the_gradient_of_the_scale(case: Case):
    model = case.retriever().train()
    model(case.batch(), 1, case.epoch_share)[0].loss.backward()
    assert model.parts["logit_scale"].log_scale.grad.item() == pytest.approx(case.json["grad_of_logit_scale"], rel=1e-3)


def test_the_scale_after_five_steps(case: Case):
    recorded = case.json["trajectory"]["logit_scale_after_five_steps"]
    assert check_trajectory(case).parts["logit_scale"].log_scale.item() == pytest.approx(recorded, abs=1e-4)


def test_losses_by_the_weight_of_soft_labels(case: Case):
    model = case.retriever().train()
    for share, losses in case.json["losses_by_alpha"].items():
        nitc = model.heads["nitc"]
        nitc.options = dataclasses.replace(nitc.options, softlabel_ratio=float(share))
        report = model(case.batch(), 2)[0].report
        for name, value in losses.items():
            assert report[name].item() == pytest.approx(value, rel=1e-4, abs=1e-6), (share, name)


def test_what_is_frozen(case: Case):
    frozen = {name for name, value in case.retriever().named_parameters() if not value.requires_grad}
    assert frozen == set(case.by_our_names(dict.fromkeys(case.json["frozen"], 0.0)))


def test_the_published_loop(case: Case):
    recorded, model, batch = case.json["published_loop"], case.retriever().train(), case.batch()
    told, steps = recorded["schedule"], recorded["iterations_per_epoch"]
    ratio = case.options.get(NITCOptions).softlabel_ratio
    options, solver = schedule_options(case, told), case.options.get(SolverOptions)
    optimizer = build_optimizer(model.parameter_roles(), type(solver)(**{**vars(solver), "lr": told["lr"]}))
    schedule = Schedule(optimizer, options)
    for number, total in enumerate(recorded["total_loss_before_each_step"]):
        epoch, step = number // steps + 1, number % steps
        schedule.set(epoch, step, steps)
        for group in optimizer.param_groups:
            factor = group["base_lr"] / told["lr"]
            assert group["lr"] == pytest.approx(factor * recorded["lr"][number], rel=1e-6), number
        assert soft_share(ratio, epoch, step / steps) == pytest.approx(recorded["alpha"][number]), number
        result, views = model(batch, epoch, step / steps)
        tolerance = 1e-3 * 10 ** (min(number, 4) / 4)
        assert result.loss.item() == pytest.approx(total, rel=tolerance), number
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        model.after_step(views)


def test_schedules(case: Case):
    for told in case.json["lr_schedule"]:
        options, steps = schedule_options(case, told), told["iterations_per_epoch"]
        ours = [
            learning_rate_of_step(told["lr"], told["lr_end"], number // steps + 1, number % steps, steps, options)
            for number in range(len(told["lr_per_step"]))
        ]
        assert ours == pytest.approx(told["lr_per_step"], rel=1e-6)


def test_captions(case: Case):
    tokenizer = CleanedTokenizer(case.retriever().backbone.tokenizer.inner)
    for told in case.json["captions"]:
        assert cleaned(told["caption"]) == told["cleaned"]
        (ids_L,), (length,) = tokenizer(told["caption"], 77)
        assert ids_L[:length].tolist() == told["ids"]


def test_the_view_of_evaluation(case: Case, tmp_path):
    form = case.retriever().input_format()
    names = [name.removesuffix("/out") for name in case.tensors if name.startswith("transform")]
    for name in {name.split("/")[0] for name in names}:
        Image.fromarray(case.tensors[f"{name}/image_uint8_hwc"].numpy()).save(tmp_path / "a.png")
        pixels = torch.from_numpy(load_resized(tmp_path / "a.png", form.image_size, form.resize_filter))
        ours = normalise(pixels[None], form.pixel_mean, form.pixel_std)[0]
        torch.testing.assert_close(ours, case.tensors[f"{name}/out"], atol=1e-5, rtol=0)


def test_features_of_the_self_supervised_head(case: Case):
    model, batch = case.retriever().eval(), case.batch()
    for number in (1, 2):
        if f"out/simclr_{number}" in case.tensors:
            feature = model.encode_image(batch[f"images_ss{number}"]).pooled
            recorded = case.tensors[f"out/simclr_{number}"]
            torch.testing.assert_close(model.heads["ss"].mlp(feature), recorded, atol=1e-4, rtol=1e-3)


def schedule_options(case: Case, told: dict) -> ScheduleOptions:
    flags = vars(case.options.get(ScheduleOptions))
    values = {"num_epoch": told["epoch"], "warmup_epochs": told["epoch_warmup"], "target_lr": told["lr_end"]}
    return ScheduleOptions(**{**flags, **values, "warmup_factor": told["lr_start"] / told["lr"]})
