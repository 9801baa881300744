"""The training loop: steps, log, validation, checkpoints, interruption."""

import logging
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.batches.train_loader import Place, TrainLoader
from model.retriever import Retriever
from processor.evaluator import Evaluator
from processor.joint_evaluator import by_set
from processor.metrics.table import metrics_table
from processor.progress import Progress
from processor.run_dir.checkpoint import random_states, restore_random_states
from processor.run_dir.history import Entry
from processor.run_dir.run_dir import RunDir
from processor.signals import Interrupted, Signals, Stopped
from processor.training_pass import training_pass
from solver.average import WeightAverage
from solver.schedule import Schedule
from utils import UserError
from utils.distributed import across_processes, own_random_numbers
from utils.log import hide_bar
from utils.options import opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class LoopOptions:
    """Flags of the training loop."""

    eval_period: int = opt(1, "epochs between evaluations (the last epoch is always evaluated)", least=1)
    eval_steps: int = opt(0, "steps between evaluations, in place of --eval_period; 0: as that says", least=0)
    log_period: int = opt(100, "steps between log lines", least=1)
    save_every: int = opt(0, "steps between checkpoints within an epoch; 0: only after each epoch", least=0)
    ema: float | None = opt(
        None, "evaluate, and save as best.pth, the moving average of the weights with this decay", above=0, most=1
    )


class NotFinite(UserError):  # noqa: N818
    """A loss or weight became NaN or infinite."""


class Trainer:
    """Trains a model over a loader into a run directory."""

    def __init__(
        self,
        model: Retriever,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        loader: TrainLoader,
        evaluator: Evaluator,
        run_dir: RunDir,
        options: LoopOptions,
    ) -> None:
        self.model, self.optimizer, self.schedule, self.loader = model, optimizer, schedule, loader
        self.evaluator, self.run_dir, self.options = evaluator, run_dir, options
        self.progress = Progress()
        self._average = WeightAverage(model, options.ema)
        loader.end_after(schedule.num_steps)
        schedule.plan(loader.epoch_steps)
        self._forward = across_processes(model)
        device = model.precision.device.type
        self._scaler = torch.amp.GradScaler(device, enabled=model.precision.needs_scaler)
        self._pending: list[dict[str, Tensor]] = []
        self._flush_every = 1 if device == "cpu" else 20

    def resume(self, checkpoint: Any) -> None:
        """Continue from the content of a last.pth.

        Raises:
            UserError: the checkpoint lacks what a resumed run needs, or belongs to another run.
        """
        wanted = ("model", "statistics", "optimizer", "scaler", "progress", "random")
        missing = [key for key in wanted if not isinstance(checkpoint, Mapping) or key not in checkpoint]
        if missing:
            raise UserError(f"--resume_ckpt_file: lacks {', '.join(missing)}; only a last.pth can be resumed")
        try:
            self.model.load_state_dict(checkpoint["model"])
            for name, value in checkpoint["statistics"].items():
                self.model.get_buffer(name).copy_(value)
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self._scaler.load_state_dict(checkpoint["scaler"])
            self._average.load_state_dict(checkpoint.get("ema", {}))
            self.progress = Progress(**checkpoint["progress"])
            if not self.progress.counts:  # before there were any, every scalar was reported in every step
                self.progress.counts = dict.fromkeys(self.progress.sums, self.progress.step)
            restore_random_states(checkpoint["random"])
            self._check_resumed()
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            reason = " ".join((str(error) or type(error).__name__).split())[:300]
            raise UserError(f"--resume_ckpt_file: does not fit this run ({reason})") from None
        self.loader.seek(self.progress.epoch, self.progress.step)

    def _check_resumed(self) -> None:
        epoch, step = self.progress.epoch, self.progress.step
        if epoch < 1 or not 0 <= step <= self.loader.steps(epoch):
            raise ValueError(f"it was saved in epoch {epoch} after step {step} of {self.loader.steps(epoch)}")
        if name := self._bad_weight():
            raise ValueError(f"weight {name} is not finite")
        for parameter, state in self.optimizer.state.items():  # which load_state_dict does not check
            for key, value in state.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"{key} of the optimiser has the shape {tuple(value.shape)}")

    def run(self) -> Progress:
        """Train to the last epoch.

        Returns:
            where the run stands then, with the metrics of best.pth and of the last epoch.

        Raises:
            NotFinite: a loss became NaN or infinite; last.pth still holds the state before.
            UserError: the device has too little memory.
            Stopped: after Ctrl-C or SIGTERM, with last.pth saved.
        """
        self._write_record()
        own_random_numbers()
        self.run_dir.open(*self.loader.place)
        self.model.open_files(self.run_dir.path, self.loader.steps_done)
        with closing(self.run_dir), closing(self.loader), Signals() as signals:
            while self.loader.place.epoch <= self.schedule.num_epoch:
                try:
                    self._train_epoch(signals)
                    self._finish_epoch(signals)
                except Interrupted:
                    self.save_last()
                    self.run_dir.draw_curves()
                    place = self.loader.place
                    log.info("stopped in epoch %d after step %d; --resume continues", place.epoch, place.step)
                    raise Stopped(128 + signals.wanted) from None
                except torch.OutOfMemoryError as error:
                    raise UserError(
                        f"{error.args[0].splitlines()[0]} Give a smaller --batch_size, --accumulate N or "
                        "--grad_checkpointing"
                    ) from error
            self.run_dir.draw_curves()
        self._write_record(finished=True)
        return self.progress

    def _train_epoch(self, signals: Signals) -> None:
        epoch, first, steps = self.loader.place
        if first == 0:
            with signals.breaking_off():
                found = self.model.before_epoch(training_pass(self.model, self.loader, epoch))
            if found:
                self.run_dir.log_division(Entry(*self.loader.place, division=found))
        self.model.train()
        if first:
            self._validate_within(signals)  # which the run had not come to before it was stopped
        started = time.perf_counter()
        shown = f"epoch {epoch}/{self.schedule.num_epoch}"
        with tqdm(self.loader, shown, steps, initial=first, disable=hide_bar()) as bar:
            for batch in bar:
                self.step(batch)
                place = self.loader.place
                if place.step % self.options.log_period == 0 or place.step == steps:
                    self._log_step(place, bar, (place.step - first) / (time.perf_counter() - started))
                self._validate_within(signals)
                if not self._pending:  # asking the others waits for them, as fetching scalars does
                    signals.agree()
                if signals.wanted is not None:
                    raise Interrupted
                if self.options.save_every and place.step % self.options.save_every == 0:
                    self.save_last()

    def step(self, batch: dict[str, Tensor]) -> None:
        """Forward, backward and update for one batch; the scalars stay on the device until they are logged."""
        epoch, step, steps = self.loader.place
        self.schedule.set(epoch, step - 1, steps)
        result, views = self._forward(batch, epoch, (step - 1) / steps)
        self._pending.append(result.report)
        if len(self._pending) >= self._flush_every:
            self._flush()
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(result.loss).backward()
        scale = self._scaler.get_scale() if self._scaler.is_enabled() else 0.0
        self._scaler.step(self.optimizer)
        self._scaler.update()
        # After an overflow in half precision the scaler skips the step: features of that batch are no good either.
        if not self._scaler.is_enabled() or self._scaler.get_scale() >= scale:
            self.model.after_step(views)
            self._average.update()

    def _flush(self) -> None:
        """Bring the scalars of the last steps to the CPU, in one transfer, and look for NaN."""
        reports, self._pending = self._pending, []
        values = [value.float() for report in reports for value in report.values()]
        numbers = iter(torch.stack(values).tolist() if values else ())
        epoch, step, _ = self.loader.place
        for number, report in enumerate(reports, start=step - len(reports) + 1):
            known = dict(zip(report, numbers, strict=False))
            if bad := [name for name, value in known.items() if not math.isfinite(value)]:
                shown = ", ".join(f"{name} {value:.4g}" for name, value in known.items())
                raise NotFinite(
                    f"epoch {epoch}, step {number}: {', '.join(bad)} not finite ({shown}); {self._what_is_left()}"
                )
            self.progress.add(known)

    def _log_step(self, place: Place, bar: tqdm, steps_per_s: float) -> None:
        self._flush()
        means, rates = self.progress.means(), self.schedule.rates()
        shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        log.info("epoch %d step %d/%d: %s, lr %.3g, %.2f steps/s", *place, shown, lr, steps_per_s)
        bar.set_postfix(loss=f"{means['loss']:.4g}")
        self.run_dir.log_training(Entry(*place, train=means, lr=rates))

    def _finish_epoch(self, signals: Signals) -> None:
        progress, place = self.progress, self.loader.place
        self._check_weights()
        for line in self.model.epoch_report(self.loader.pids):
            log.info("epoch %d, %s", place.epoch, line)
        every = self.options.eval_steps
        rest = self.loader.steps_done % every if every else place.epoch % self.options.eval_period
        if rest == 0 or place.epoch == self.schedule.num_epoch:
            self._validate(signals, place)
        self.loader.seek(place.epoch + 1)
        self.progress = Progress(best=progress.best, last=progress.last, evaluated=progress.evaluated)
        self.save_last()
        signals.agree()
        if signals.wanted is not None:
            log.info("stopped after epoch %d; --resume continues", place.epoch)
            raise Stopped(128 + signals.wanted)

    def _validate_within(self, signals: Signals) -> None:
        """Evaluate where ``--eval_steps`` says so and the epoch is not over."""
        done, place = self.loader.steps_done, self.loader.place
        due = self.options.eval_steps and done % self.options.eval_steps == 0 and place.step < place.steps
        if due and self.progress.evaluated < done:
            self._validate(signals, place)

    def _validate(self, signals: Signals, place: Place) -> None:
        with self._average.in_place(), signals.breaking_off():
            rows, features, _ = self.evaluator.evaluate()
        log.info("validation after %s, %s\n%s", place.shown, self.model.precision.name, metrics_table(rows))
        progress, metrics, self.progress.evaluated = self.progress, rows["t2i"], self.loader.steps_done
        self.run_dir.log_validation(Entry(*place, val=metrics | by_set(rows)), lambda: self.evaluator.picture(features))
        progress.last = {**metrics, "epoch": place.epoch}
        if progress.is_best(metrics):
            if not progress.best and not self.run_dir.has_last:
                self.save_last()  # a run with a best.pth can be resumed, whenever it is killed
            progress.best = progress.last
            with self._average.in_place():
                content = {"model": self.model.state_dict(), "epoch": place.epoch, "metrics": progress.best}
                self.run_dir.save_best(content)

    def _what_is_left(self) -> str:
        good = f"{self.run_dir.path / 'last.pth'} holds the last good state"
        left = good if self.run_dir.has_last else "no checkpoint had been written yet"
        return f"{left}. Try a lower --lr or --precision fp32"

    def _bad_weight(self) -> str | None:
        return next((name for name, value in self.model.named_parameters() if not torch.isfinite(value).all()), None)

    def _check_weights(self) -> None:
        if name := self._bad_weight():
            epoch, step, _ = self.loader.place
            raise NotFinite(f"epoch {epoch}, step {step}: weight {name} is not finite; {self._what_is_left()}")

    def save_last(self) -> None:
        """Write last.pth, from which training resumes, and keep the one before it."""
        self._flush()
        self._check_weights()
        self.progress.epoch, self.progress.step, _ = self.loader.place
        self.run_dir.save_last(
            {
                "model": self.model.state_dict(),
                "statistics": self._statistics(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
                "progress": asdict(self.progress),
                "epoch": self.progress.epoch - 1,
                "random": random_states(),
                "ema": self._average.state_dict(),
            }
        )
        self.model.saved()
        self._write_record()

    def _statistics(self) -> dict[str, Tensor]:
        """What holds for an epoch: buffers of the heads and of the division that are no weights."""
        weights, division = self.model.state_dict(), self.model.division
        buffers = [*self.model.heads.named_buffers(prefix="heads")]
        if division is not None:
            buffers += division.named_buffers(prefix="division")
        return {name: value for name, value in buffers if name not in weights}

    def _write_record(self, finished: bool = False) -> None:
        self.run_dir.record.write(best=self.progress.best, last=self.progress.last, finished=finished)
