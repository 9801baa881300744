"""The training loop: steps, log, validation, checkpoints, interruption."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from processor.evaluator import Evaluation, Features
from processor.metrics.table import metrics_table
from processor.run_dir.checkpoint import random_states, restore_random_states, write_checkpoint
from processor.run_dir.history import Entry
from processor.run_dir.journal import Journal, learning_rates
from processor.run_dir.record import RunRecord
from processor.signals import Interrupted, Signals, Stopped
from utils.device import Precision
from utils.distributed import across_processes, is_main, own_random_numbers
from utils.log import hide_bar
from utils.options import opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class LoopOptions:
    """Flags of the training loop."""

    eval_period: int = opt(1, "epochs between evaluations (the last epoch is always evaluated)")
    log_period: int = opt(100, "steps between log lines")
    save_every: int = opt(0, "steps between checkpoints within an epoch; 0: only after each epoch")

    def __post_init__(self) -> None:
        for name, least in (("eval_period", 1), ("log_period", 1), ("save_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: expected at least {least}")


class Loader(Protocol):
    """Training batches by epoch."""

    def steps(self, epoch: int) -> int:
        """Batches in an epoch."""

    def epoch(self, epoch: int, skip: int = 0) -> Iterable[dict[str, Tensor]]:
        """The batches of an epoch, from the one after ``skip`` on."""


@dataclass
class Progress:
    """Where a run stands; everything a resumed run needs beside weights and optimiser."""

    epoch: int = 1
    """the epoch that is running, or that comes next"""
    step: int = 0
    """steps done in it"""
    best: dict[str, float] = field(default_factory=dict)
    """metrics of best.pth, with its epoch"""
    last: dict[str, float] = field(default_factory=dict)
    """metrics of the last evaluation, with its epoch"""
    sums: dict[str, float] = field(default_factory=dict)
    """of this epoch's logged scalars"""


class NotFinite(RuntimeError):  # noqa: N818
    """A loss or weight became NaN or infinite."""


class Trainer:
    """Trains a model over a loader into a run directory."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: Loader,
        *,
        options: LoopOptions,
        num_epoch: int,
        set_epoch: Callable[[int], None],
        prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        evaluate: Callable[[], Evaluation],
        precision: Precision,
        run_dir: Path,
        record: RunRecord,
        report: Callable[[], Iterable[str]] = tuple,
        picture: Callable[[Features], Any] | None = None,
    ) -> None:
        """
        Args:
            model: called as ``model(batch, epoch, precision)``, gives (step, views).
            optimizer: over the model's parameters.
            loader: training batches.
            options: periods of logging, validation and saving.
            num_epoch: epochs to train.
            set_epoch: sets learning rates for an epoch.
            prepare: moves a batch to the device and applies augmentation there.
            evaluate: gives the table rows and features of the validation split.
            precision: arithmetic of network layers.
            run_dir: existing folder for checkpoints, history, curves and TensorBoard events.
            record: the run's run.json.
            report: gives further lines for the log after every epoch.
            picture: draws some retrievals, (height, width, 3) in RGB.
        """
        self.model, self.optimizer, self.loader = model, optimizer, loader
        self.forward = across_processes(model)
        self.options, self.num_epoch, self.set_epoch = options, num_epoch, set_epoch
        self.prepare, self.evaluate, self.precision, self.run_dir = prepare, evaluate, precision, run_dir
        self.record, self.report, self.picture = record, report, picture
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.needs_scaler)
        self.progress = Progress()
        self._pending: list[dict[str, Tensor]] = []
        self._flush_every = 1 if precision.device.type == "cpu" else 20

    def resume(self, checkpoint: Any) -> None:
        """Continue from the content of a last.pth.

        Raises:
            ValueError: the checkpoint lacks what a resumed run needs, or belongs to another run.
        """
        wanted = ("model", "statistics", "optimizer", "scaler", "progress", "random")
        missing = [key for key in wanted if not isinstance(checkpoint, Mapping) or key not in checkpoint]
        if missing:
            raise ValueError(f"--resume_ckpt_file: lacks {', '.join(missing)}; only a last.pth can be resumed")
        try:
            self.model.load_state_dict(checkpoint["model"])
            for name, value in checkpoint["statistics"].items():
                self.model.get_buffer(name).copy_(value)
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.scaler.load_state_dict(checkpoint["scaler"])
            self.progress = Progress(**checkpoint["progress"])
            restore_random_states(checkpoint["random"])
            self._check_resumed()
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            reason = " ".join((str(error) or type(error).__name__).split())[:300]
            raise ValueError(f"--resume_ckpt_file: does not fit this run ({reason})") from None

    def _check_resumed(self) -> None:
        epoch, step = self.progress.epoch, self.progress.step
        if epoch < 1 or not 0 <= step <= self.loader.steps(epoch):
            raise ValueError(f"it stands in epoch {epoch} after step {step} of {self.loader.steps(epoch)}")
        if name := self._bad_weight():
            raise ValueError(f"weight {name} is not finite")
        for parameter, state in self.optimizer.state.items():  # which load_state_dict does not look at
            for key, value in state.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"{key} of the optimiser has the shape {tuple(value.shape)}")

    def run(self) -> Progress:
        """Train to the last epoch.

        Returns:
            where the run stands then, with the metrics of best.pth and of the last epoch.

        Raises:
            NotFinite: a loss became NaN or infinite; last.pth still holds the state before.
            Stopped: after Ctrl-C or SIGTERM, with last.pth saved.
        """
        self.record.write(best=self.progress.best, last=self.progress.last)
        own_random_numbers()
        epoch, step = self.progress.epoch, self.progress.step
        journal = Journal(self.run_dir, epoch, step, self.loader.steps(epoch), silent=not is_main())
        with closing(journal), Signals() as signals:
            while self.progress.epoch <= self.num_epoch:
                try:
                    self._train_epoch(signals, journal)
                    self._finish_epoch(signals, journal)
                except Interrupted:
                    self.save_last()
                    where = self.progress.epoch, self.progress.step
                    log.info("stopped in epoch %d after step %d; --resume continues", *where)
                    raise Stopped(128 + signals.wanted) from None
        self.record.write(best=self.progress.best, last=self.progress.last, finished=True)
        return self.progress

    def _train_epoch(self, signals: Signals, journal: Journal) -> None:
        epoch = self.progress.epoch
        self.model.train()
        self.set_epoch(epoch)
        started, first = time.perf_counter(), self.progress.step
        batches = self.loader.epoch(epoch, skip=first)
        shown = f"epoch {epoch}/{self.num_epoch}"
        with tqdm(batches, shown, self.loader.steps(epoch), initial=first, disable=hide_bar()) as bar:
            for batch in bar:
                self.step(batch)
                step = self.progress.step
                if step % self.options.log_period == 0 or step == self.loader.steps(epoch):
                    self._log_step(journal, bar, (step - first) / (time.perf_counter() - started))
                if not self._pending:  # asking the others waits for them, as fetching scalars does
                    signals.agree()
                if signals.wanted is not None:
                    raise Interrupted
                if self.options.save_every and step % self.options.save_every == 0:
                    self.save_last()

    def step(self, batch: dict[str, Tensor]) -> None:
        """Forward, backward and update for one batch; the scalars stay on the device until they are logged."""
        step, views = self.forward(self.prepare(batch), self.progress.epoch, self.precision)
        self.progress.step += 1
        self._pending.append(step.report)
        if len(self._pending) >= self._flush_every:
            self._flush()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(step.loss).backward()
        self.model.after_backward(views)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _flush(self) -> None:
        """Bring the scalars of the last steps to the CPU, in one transfer, and look for NaN."""
        if not self._pending:
            return
        names = list(self._pending[0])
        rows = torch.stack([torch.stack([report[name].float() for name in names]) for report in self._pending]).tolist()
        first_step = self.progress.step - len(rows) + 1
        self._pending.clear()
        for offset, row in enumerate(rows):
            values = dict(zip(names, row, strict=True))
            bad = {name: value for name, value in values.items() if not math.isfinite(value)}
            if bad:
                shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
                raise NotFinite(
                    f"epoch {self.progress.epoch}, step {first_step + offset}: {', '.join(bad)} not finite ({shown}); "
                    f"{self._what_is_left()}. Try a lower --lr or --precision fp32"
                )
            for name, value in values.items():
                self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value

    def _log_step(self, journal: Journal, bar: tqdm, steps_per_s: float) -> None:
        self._flush()
        progress = self.progress
        means = {name: total / progress.step for name, total in progress.sums.items()}
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        log.info(
            "epoch %d step %d/%d: %s, lr %.3g, %.2f steps/s",
            *(progress.epoch, progress.step, self.loader.steps(progress.epoch), shown, lr, steps_per_s),
        )
        bar.set_postfix(loss=f"{means['loss']:.4g}")
        rates = learning_rates(self.optimizer.param_groups)
        journal.train(Entry(progress.epoch, progress.step, self.loader.steps(progress.epoch), train=means, lr=rates))

    def _finish_epoch(self, signals: Signals, journal: Journal) -> None:
        progress = self.progress
        epoch = progress.epoch
        self._check_weights()
        for line in self.report():
            log.info("epoch %d, %s", epoch, line)
        improved = False
        if epoch % self.options.eval_period == 0 or epoch == self.num_epoch:
            with signals.breaking_off():
                rows, features = self.evaluate()
            log.info("validation after epoch %d\n%s", epoch, metrics_table(rows))
            picture = partial(self.picture, features) if self.picture else None
            journal.validation(Entry(epoch, progress.step, self.loader.steps(epoch), val=rows["t2i"]), picture)
            progress.last = {**rows["t2i"], "epoch": epoch}
            improved = rows["t2i"]["R1"] > progress.best.get("R1", -1.0)
        if improved:
            if not progress.best and not (self.run_dir / "last.pth").exists():
                self.save_last()  # a run with a best.pth can be resumed, whenever it is killed
            progress.best = progress.last
            write_checkpoint(
                self.run_dir / "best.pth",
                {"model": self.model.state_dict(), "epoch": epoch, "metrics": progress.best},
            )
        self.progress = Progress(epoch + 1, 0, progress.best, progress.last, {})
        self.save_last()
        signals.agree()
        if signals.wanted is not None:
            raise Stopped(128 + signals.wanted)

    def _what_is_left(self) -> str:
        last = self.run_dir / "last.pth"
        return f"{last} holds the last good state" if last.exists() else "no checkpoint had been written yet"

    def _bad_weight(self) -> str | None:
        parameters = self.model.named_parameters()
        return next((name for name, value in parameters if not torch.isfinite(value).all()), None)

    def _check_weights(self) -> None:
        if name := self._bad_weight():
            raise NotFinite(
                f"epoch {self.progress.epoch}, step {self.progress.step}: weight {name} is not finite; "
                f"{self._what_is_left()}. Try a lower --lr or --precision fp32"
            )

    def save_last(self) -> None:
        """Write last.pth, from which training continues, and keep the one before it."""
        self._flush()
        self._check_weights()
        weights = self.model.state_dict()
        statistics = {name: value for name, value in self.model.named_buffers() if name not in weights}
        write_checkpoint(
            self.run_dir / "last.pth",
            {
                "model": weights,
                "statistics": statistics,  # of the epoch, for its report
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "progress": asdict(self.progress),
                "epoch": self.progress.epoch - 1,
                "random": random_states(),
            },
            keep=True,
        )
        self.record.write(best=self.progress.best, last=self.progress.last)
