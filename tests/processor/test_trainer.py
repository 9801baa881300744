"""The training loop on a small real data set: what it averages, updates, saves and resumes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from datasets.open import open_dataset
from datasets.records import counts
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.batch_views import BatchViews
from model.build import build_retriever
from model.division import Division
from model.losses.base import LossHead, LossTerm, Sizes
from processor.evaluator import Evaluator
from processor.run_dir.history import read_history
from processor.run_dir.run_dir import open_run_dir
from processor.trainer import LoopOptions, NotFinite, Trainer
from processor.training_pass import training_pass
from solver import build_solver
from tests.helpers.runs import SMALL
from utils import UserError


@pytest.fixture
def make_trainer(data_root: Path, tmp_path: Path) -> Callable[..., Trainer]:
    """A trainer from flags, as train.py makes one; its run directory is ``tmp_path``."""

    def make(*flags: str) -> Trainer:
        torch.manual_seed(0)
        options = train.read_flags([*SMALL, "--root_dir", str(data_root), "--precision", "fp32", *flags])
        get = options.get
        backbone = load_backbone(get(BackboneOptions))
        opened = open_dataset(get, backbone.spec.image_size, {"train": "--dataset_name", "test": "--val_dataset"})
        model = build_retriever(backbone, get, *counts(opened.dataset.train))
        form, device = model.input_format(77), model.precision.device
        loader = opened.train_loader(form, model.needed_fields, model.padded_fields, device)
        evaluator = Evaluator(model, opened.split("test", form, device))
        run_dir = open_run_dir(tmp_path, options, model.precision, None, opened.annotations)
        optimizer, schedule = build_solver(model.parameter_roles(), get)
        return Trainer(model, optimizer, schedule, loader, evaluator, run_dir, get(LoopOptions))

    return make


class Sometimes(LossHead):
    """Reports the number of the step, in every third step only."""

    def __init__(self) -> None:
        super().__init__(None, Sizes(0, 0, 0, 0, 0))
        self.step = 0

    def forward(self, views: BatchViews) -> LossTerm:
        self.step += 1
        metrics = {"step": torch.tensor(float(self.step))} if self.step % 3 == 0 else {}
        return LossTerm(0 * views.image().pooled.sum(), metrics)


@pytest.mark.parametrize("flush_every", [1, 4, 20])
def test_a_metric_of_some_steps_is_averaged_over_these(make_trainer, tmp_path: Path, flush_every: int):
    """Flushed every 20 steps, as on a GPU, it was a KeyError, or was lost where the first step lacked it."""
    flags = ("--loss_names", "itc", "--batch_size", "4", "--num_epoch", "1", "--log_period", "2")
    trainer = make_trainer(*flags)
    trainer.model.heads["sometimes"] = Sometimes()
    trainer._flush_every = flush_every
    trainer.run()
    entries = [entry for entry in read_history(tmp_path) if entry.train]
    assert entries[-1].step == entries[-1].steps >= 7
    for entry in entries:
        reported = [step for step in range(1, entry.step + 1) if step % 3 == 0]
        expected = sum(reported) / len(reported) if reported else None
        assert entry.train.get("sometimes_step") == expected, entry
        assert entry.train["loss"] == pytest.approx(entry.train["itc_loss"])


class Scaler:
    """A GradScaler that finds an overflow in the steps that it is told of."""

    def __init__(self, overflows: list[bool]) -> None:
        self.overflows, self.now, self.value = iter(overflows), False, 1024.0

    def is_enabled(self) -> bool:
        return True

    def get_scale(self) -> float:
        return self.value

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.now = next(self.overflows)
        if not self.now:
            optimizer.step()

    def update(self) -> None:
        self.value = self.value / 2 if self.now else self.value * 2

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("losses", ["itc+memory+instance_memory", "itc+memory_soft"])
def test_banks_stay_where_the_scaler_skips_a_step(make_trainer, losses: str):
    trainer = make_trainer("--loss_names", losses)
    overflows = [False, True, True, False]
    trainer._scaler = Scaler(overflows)
    banks = {name for name in trainer.model.state_dict() if "bank" in name}
    assert banks
    for overflow, batch in zip(overflows, trainer.loader, strict=False):
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.step(batch)
        after = trainer.model.state_dict()
        assert torch.equal(after["clip.visual.proj"], before["clip.visual.proj"]) == overflow
        for name in banks:
            assert torch.equal(after[name], before[name]) == overflow, name


@pytest.mark.parametrize("loss", ["itm", "TAL"])
def test_batches_of_one_identity_train_the_other_losses_and_are_reported(make_trainer, messages, loss: str):
    trainer = make_trainer("--loss_names", f"sdm+{loss}", "--batch_size", "1", "--num_epoch", "1", "--cmt_depth", "1")
    before = trainer.model.clip.visual.proj.detach().clone()
    steps = trainer.loader.steps(1)
    assert steps > 1
    trainer.run()
    line = f"epoch 1, {loss}: {steps} batches of a single identity could not be used and counted as 0"
    assert messages.messages.count(line) == 1
    assert trainer.model.clip.visual.proj.isfinite().all()
    assert not torch.equal(trainer.model.clip.visual.proj, before)


def test_last_holds_no_expert_counters_of_validation_and_is_resumed(make_trainer, tmp_path: Path):
    flags = ("--loss_names", "itc+aux+memory_soft", "--moe_layers", "1")
    trainer = make_trainer(*flags, "--num_epoch", "1")
    trainer.run()
    assert trainer.model.expert_use()["image"].any(), "the validation was counted"
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    assert set(saved["statistics"]) == {
        *("heads.itc.unusable", "heads.aux.unusable", "heads.memory_soft.unusable", "heads.memory_soft.neighbours")
    }
    assert not any("used_MNE" in name for name in saved["model"])
    resumed = make_trainer(*flags, "--num_epoch", "2")
    resumed.resume(saved)
    assert resumed.loader.place[:2] == (2, 0)
    assert not resumed.model.expert_use()["image"].any()
    state = resumed.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in saved["model"].items())


def test_what_heads_count_during_an_epoch_survives_an_interruption(make_trainer, tmp_path: Path):
    trainer = make_trainer("--loss_names", "sdm+itm", "--batch_size", "1", "--cmt_depth", "1")
    for _, batch in zip(range(3), trainer.loader, strict=False):
        trainer.step(batch)
    trainer.save_last()
    resumed = make_trainer("--loss_names", "sdm+itm", "--batch_size", "1", "--cmt_depth", "1")
    resumed.resume(torch.load(tmp_path / "last.pth", weights_only=True))
    assert resumed.loader.place[:2] == (1, 3)
    assert resumed.model.heads["itm"].unusable == 3
    assert resumed.progress.counts == dict.fromkeys(resumed.progress.sums, 3)


def test_a_checkpoint_from_before_scalars_were_counted_is_resumed(make_trainer, tmp_path: Path):
    """Then every scalar was reported in every step."""
    trainer = make_trainer("--loss_names", "itc")
    for _, batch in zip(range(2), trainer.loader, strict=False):
        trainer.step(batch)
    trainer.save_last()
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    counted = trainer.progress.means()
    del saved["progress"]["counts"]
    resumed = make_trainer("--loss_names", "itc")
    resumed.resume(saved)
    assert resumed.progress.means() == counted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("optimizer"), "lacks optimizer; only a last.pth can be resumed"),
        (lambda saved: saved["model"].pop("clip.visual.proj"), "does not fit this run"),
        (lambda saved: saved["progress"].update(step=9999), "does not fit this run .*after step 9999"),
        (lambda saved: saved["model"]["clip.visual.proj"].fill_(torch.nan), "weight clip.visual.proj is not finite"),
    ],
)
def test_what_cannot_be_resumed_is_said(make_trainer, tmp_path: Path, change: Callable, message: str):
    trainer = make_trainer("--loss_names", "itc")
    trainer.step(next(iter(trainer.loader)))
    trainer.save_last()
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    change(saved)
    with pytest.raises(UserError, match=f"--resume_ckpt_file: .*{message}"):
        make_trainer("--loss_names", "itc").resume(saved)


@pytest.mark.parametrize("flush_every", [1, 20])
def test_a_loss_that_is_not_finite_names_its_step(make_trainer, flush_every: int):
    trainer = make_trainer("--loss_names", "itc", "--batch_size", "4")
    trainer._flush_every = flush_every
    with pytest.raises(NotFinite, match=r"epoch 1, step 3: loss, itc_loss not finite .*no checkpoint had been written"):
        for number, batch in enumerate(trainer.loader, start=1):
            if number == 3:
                trainer.model.clip.visual.proj.data.fill_(torch.nan)
            trainer.step(batch)
        trainer.save_last()


RDE = ("--loss_names", "TAL", "--select_ratio", "0.3", "--noisy_rate", "0.5", "--img_aug", "--txt_aug")


class Killed(BaseException):
    """Ends a run as SIGKILL would, without its handlers."""


class DyingPass:
    """A pass over the training pairs that ends a run in the middle."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        for number, batch in enumerate(self.batches):
            if number:
                raise Killed
            yield batch


@pytest.mark.parametrize("moment", ["during the pass", "after it"])
def test_a_division_is_resumed_exactly(make_trainer, tmp_path: Path, monkeypatch, moment: str):
    """Labels are those of an uninterrupted run, whenever it was killed; every division is in the history once."""
    labels: list[torch.Tensor] = []
    divide = Division.divide

    def divide_and_keep(self, *args):
        report = divide(self, *args)
        labels.append(self.clean.clone())
        return report

    monkeypatch.setattr(Division, "divide", divide_and_keep)
    flags = (*RDE, "--num_epoch", "2", "--save_every", "2")
    whole = make_trainer(*flags)
    whole.run()
    expected, in_one_go = whole.model.state_dict(), list(labels)
    assert len(in_one_go) == 2 and not torch.equal(*in_one_go) and 0 < in_one_go[0].sum() < len(in_one_go[0])
    for name in ("last.pth", "best.pth", "history.jsonl"):
        (tmp_path / name).unlink()

    killed = make_trainer(*flags)
    again, step = killed.loader.again, killed.step

    def dying_step(batch):
        if killed.loader.place[:2] == (2, 4):
            raise Killed
        step(batch)

    if moment == "after it":
        killed.step = dying_step
    else:
        monkeypatch.setattr(
            killed.loader, "again", lambda *args: DyingPass(again(*args)) if args[1] == 2 else again(*args)
        )
    with pytest.raises(Killed):
        killed.run()
    resumed = make_trainer(*flags)
    resumed.resume(torch.load(tmp_path / "last.pth", weights_only=True))
    assert resumed.loader.place[:2] == ((2, 0) if moment == "during the pass" else (2, 2))
    labels.clear()
    resumed.run()
    assert len(labels) == (moment == "during the pass")
    assert torch.equal(resumed.model.division.clean, in_one_go[1])
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items())
    assert [entry.epoch for entry in read_history(tmp_path) if entry.division] == [1, 2]


def test_every_pair_is_judged_whatever_the_sampler(make_trainer):
    identity = ("--sampler", "identity", "--num_instance", "2")
    for flags in ((), identity, ("--division_plain",), ("--loss_names", "itc+id")):
        trainer = make_trainer(*RDE, *flags)
        judged = []
        trainer.model.division.divide = lambda loss_KN, *_, seen=judged: seen.append(loss_KN) or {}
        trainer.model.before_epoch(training_pass(trainer.model, trainer.loader, 1))
        assert judged[0].isfinite().all() and judged[0].shape == (2, len(trainer.loader.pids))
        assert torch.equal(training_pass(trainer.model, trainer.loader, 1).matched_N, trainer.loader.real)
        assert trainer.model.token_selection.image.norm.num_batches_tracked == 0


def test_a_plain_pass_is_the_same_in_every_epoch_and_a_random_one_is_not(make_trainer):
    trainer = make_trainer(*RDE)
    fields = ("images", "caption_ids", "index")
    for plain in (True, False):
        first, same, second = (list(trainer.loader.again(fields, epoch, plain)) for epoch in (1, 1, 2))
        for one, other in zip(first, same, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
        alike = [torch.equal(one["images"], other["images"]) for one, other in zip(first, second, strict=True)]
        assert all(alike) if plain else not any(alike)
    assert not torch.equal(next(iter(trainer.loader))["index"], first[0]["index"])


def test_a_model_that_tells_nothing_apart(make_trainer: Callable[..., Trainer], messages: pytest.LogCaptureFixture):
    trainer = make_trainer("--loss_names", "itc")
    torch.nn.init.zeros_(trainer.model.backbone.visual.proj)
    trainer.evaluator.evaluate()  # in training, it may recover
    assert "all 10 images have the same feature" in messages.text and "captions have" not in messages.text
    with pytest.raises(UserError, match="all 10 images have the same feature: .*test another checkpoint"):
        trainer.evaluator.evaluate(refuse_equal=True)
