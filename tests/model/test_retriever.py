"""The model as a whole: a step asks nothing back from the device, and reports every head's scalars under its name."""

from collections.abc import Collection

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import train
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.build import build_retriever
from model.losses.base import LossHead, LossTerm, PairFeatures, Sizes, TrainingPass
from model.retriever import Retriever
from tests.helpers.golden import Case, params
from utils import UserError

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "bincount"}
"""operators whose result, or its size, the host has to know"""
ALLOWED = {"eccl": {"bincount"}}
"""the memories of ECCL are updated in turns, whose number the host has to know (``model.losses.bank.turns``)"""


class NoWaiting(TorchDispatchMode):
    """Raises at an operator that the host would have to wait for on a GPU."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        super().__init__()
        self.forbidden = WAITING.difference(allowed)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith(("index", "_index_put")) and len(args) > 1 else None
        by_mask = isinstance(indices, list | tuple) and any(
            index is not None and index.dtype == torch.bool for index in indices
        )
        if name in self.forbidden or by_mask:
            raise AssertionError(f"{func} makes the host wait")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", params())
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_golden_step_does_not_wait(case: Case, epoch: int):
    model, batch = case.retriever().train(), case.batch()
    with NoWaiting(ALLOWED.get(case.json["system"], ())):
        step, views = model(batch, epoch)
        step.loss.backward()
        model.after_step(views)


def test_the_check_sees_what_waits():
    values = torch.arange(3.0)
    for waits in (lambda: values.sum().item(), lambda: values[values > 1], lambda: values.nonzero()):
        with NoWaiting(), pytest.raises(AssertionError, match="wait"):
            waits()


def build(*flags: str) -> Retriever:
    torch.manual_seed(0)
    options = train.read_flags(["--pretrain_choice", "tiny", "--img_size", "32", "32", *flags])
    return build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=5, images=6, pairs=8)


def make_batch(pids: list[int]) -> dict[str, torch.Tensor]:
    count = len(pids)
    ids = torch.randint(1, 49405, (count, 12))
    ids[:, 0], ids[:, 9], ids[:, 10:] = 49406, 49407, 0
    batch = {"images": torch.randn(count, 3, 32, 32), "caption_ids": ids, "pids": torch.tensor(pids)}
    return batch | {"caption_ids_lengths": torch.full((count,), 10), "index": torch.arange(count)}


class Constant(LossHead):
    """A loss that reports a metric called ``size``."""

    def __init__(self, value: float) -> None:
        super().__init__(None, Sizes(64, 0, 0, 0, 0))
        self.value = value
        self.seen: list[str] = []

    def forward(self, views) -> LossTerm:
        return LossTerm(self.value + 0 * views.image().pooled.sum(), {"size": torch.tensor(self.value)})

    def before_epoch(self, training_pass: TrainingPass) -> None:
        self.seen.append(f"epoch {training_pass.epoch} {id(training_pass.features)}")

    def after_step(self, views) -> None:
        self.seen.append("step")

    def epoch_report(self, train_pids: torch.Tensor) -> str:
        return f"{len(train_pids)} pairs" if self.value > 1 else ""


def test_metrics_of_one_name_do_not_overwrite_each_other():
    model = Retriever(build().backbone, heads={"small": Constant(1.0), "large": Constant(2.0)})
    model.heads["large"].weight = 10.0
    step, _ = model(make_batch([0, 1, 2]))
    report = {name: value.item() for name, value in step.report.items()}
    assert report == {"loss": 21.0, "small_loss": 1.0, "small_size": 1.0, "large_loss": 20.0, "large_size": 2.0}
    assert not any(value.requires_grad for value in step.report.values())


def test_metrics_of_real_heads_carry_their_names():
    step, _ = build("--loss_names", "sdm+id+itm+memory_soft")(make_batch([0, 1, 2, 1]))
    assert set(step.report) == {
        *("loss", "sdm_loss", "id_loss", "id_img_acc", "id_txt_acc", "itm_loss", "itm_acc", "itm_temp"),
        *("memory_soft_loss", "memory_soft_neighbours"),
    }


def test_heads_hear_of_epochs_and_steps_and_share_one_pass_over_the_training_split():
    model, passes = Retriever(build().backbone, heads={"one": Constant(1.0), "two": Constant(2.0)}), []

    def encode() -> PairFeatures:
        passes.append("pass")
        return PairFeatures(*torch.randn(2, 8, 64), torch.arange(8), torch.arange(8))

    model.before_epoch(TrainingPass(3, encode))
    assert passes == ["pass"]
    _, views = model(make_batch([0, 1]))
    model.after_step(views)
    assert model.heads["one"].seen == model.heads["two"].seen
    assert [seen.split()[:2] for seen in model.heads["one"].seen] == [["epoch", "3"], ["step"]]
    assert model.epoch_report(torch.arange(8)) == ["two: 8 pairs"]


def test_no_head_asks_for_the_training_split_without_need():
    model = build("--loss_names", "sdm+id+itm+memory_soft")
    model.before_epoch(TrainingPass(1, lambda: pytest.fail("encoded for nothing")))


@pytest.mark.parametrize("loss", ["itm", "TAL"])
@pytest.mark.parametrize("pids", [[3], [4, 4, 4]])
def test_batches_of_one_identity_count_as_zero_and_are_reported(loss: str, pids: list[int]):
    """A run was refused, in whatever epoch such a batch came."""
    model = build("--loss_names", f"sdm+{loss}").train()
    usable, _ = model(make_batch([0, 1, 2, 1]))
    assert usable.report[f"{loss}_loss"] != 0
    step, _ = model(make_batch(pids))
    assert step.report[f"{loss}_loss"] == 0
    assert step.loss == step.report["sdm_loss"]
    step.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    for name, parameter in model.heads[loss].named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name
    model(make_batch(pids))
    line = f"{loss}: 2 batches of a single identity could not be used and counted as 0"
    assert model.epoch_report(torch.zeros(8)) == [line]
    assert model.epoch_report(torch.zeros(8)) == [], "every epoch counts anew"


def test_the_input_format_is_the_backbones():
    model = build()
    form = model.input_format(60)
    assert (form.text_length, form.image_size, form.reads_padding) == (60, (32, 32), False)
    assert form.tokenizer is model.backbone.tokenizer
    assert form.pixel_mean == model.backbone.spec.pixel_mean and form.pixel_std == model.backbone.spec.pixel_std
    with pytest.raises(UserError, match="--text_length 78: the text tower takes at most 77 tokens"):
        model.input_format(78)
    prompted = build("--prompt_depth", "1", "--num_context", "4")
    assert prompted.input_format(77).text_length == 73 and prompted.input_format(60).text_length == 60
    assert build("--loss_names", "itc+aux").input_format(77).reads_padding


def test_fields_are_those_of_the_heads_each_once():
    model = build("--loss_names", "mlm+sdm+itm")
    assert model.needed_fields == ("images", "mlm_ids", "mlm_labels", "mlm_positions", "caption_ids", "pids")
    assert set(model.padded_fields) == {"caption_ids", "mlm_ids"}
    assert build("--loss_names", "sdm").padded_fields == ()


def test_parameters_are_counted():
    model = build("--loss_names", "sdm", "--lora_r", "2")
    trained = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert model.parameter_summary() == f"{trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters trained"
    assert model.clip is model.backbone
