"""Training batches: samples are made in worker processes, their image views on the device.

Shape letters: B batch, N pairs of the training split.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.batches.evaluation_split import EvaluationSplit
from datasets.batches.pairs import TO_READ, Pairs
from datasets.batches.sampler import BatchSampler
from datasets.batches.train_pairs import random_sampler
from datasets.images.prefetch import prefetched
from datasets.options import DataOptions
from datasets.parallel import BatchLoader
from utils import UserError


class Place(NamedTuple):
    """Where a run stands."""

    epoch: int
    """1 in the first epoch"""
    step: int
    """steps done in it"""
    steps: int
    """steps that it has"""

    @property
    def shown(self) -> str:
        """For messages: ``epoch 2``, or within an epoch ``epoch 2, step 30``."""
        return f"epoch {self.epoch}" + (f", step {self.step}" if self.step < self.steps else "")


class _Batches:
    """One epoch after another of a sampler's batches, ready on the device."""

    def __init__(
        self,
        pairs: Pairs,
        sampler: BatchSampler,
        workers: int,
        device: torch.device,
        keep_workers: bool = False,
    ) -> None:
        """From so many worker processes, which live for one epoch unless ``keep_workers``."""
        self._pairs, self.sampler, self._device = pairs, sampler, device
        self._loader = BatchLoader(pairs, sampler, workers, device, persistent_workers=keep_workers and workers > 0)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch, bounds in zip(self._read(), self.sampler.bounds(), strict=True):
            # on the CPU: the program reads it, and would have to wait for a GPU
            yield self._on_device(batch) | {"share_bounds": torch.tensor(bounds)}

    def _read(self) -> Iterator[dict[str, Tensor]]:
        if not (self._pairs.views and self._pairs.images.cached):
            yield from self._loader
            return
        pin_memory = self._loader.pin_memory
        for batch, pixels in prefetched(self._loader, lambda each: self._pairs.read_pixels(each[TO_READ], pin_memory)):
            del batch[TO_READ]
            yield batch | {"pixels": pixels}

    def _on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move a batch, make its image views there, and give one tensor a second name where captions share it."""
        views, form = self._pairs.views, self._pairs.form
        moved = {name: value.to(self._device, non_blocking=True) for name, value in batch.items() if name not in views}
        pixels = moved.pop("pixels", None)
        for field, view in views.items():
            moved[field] = view.apply(pixels, batch[field], form.pixel_mean, form.pixel_std)
        return moved | {name: moved[source] for name, source in self._pairs.aliases.items()}


class TrainLoader:
    """Training batches on the device, epoch by epoch, from worker processes that live as long as the run.

    It knows where it stands and can be set to any step of any epoch.
    """

    def __init__(
        self,
        pairs: Pairs,
        options: DataOptions,
        device: torch.device,
        caption_index: np.ndarray | None = None,
    ) -> None:
        """Batches of ``pairs``; the options say how large, in what order, and from how many processes.

        ``caption_index``: (N,) whose caption each pair has, if captions were exchanged. Training does not look at it.
        """
        self._pairs, self._options, self._device = pairs, options, device
        self.pids = torch.from_numpy(pairs.pids)
        """(N,) identity of every training pair"""
        self.real: Tensor | None = None
        """(N,) bool, with label noise: whether a training pair has its own caption; to judge a division by"""
        if caption_index is not None:
            self.real = torch.from_numpy(caption_index == np.arange(len(pairs)))
        self.seed = options.seed
        """of every random choice"""
        self._sampler = pairs.sampler(options)
        self._epoch, self._step = 1, 0
        self._num_steps: int | None = None
        self._batches: _Batches | None = _Batches(pairs, self._sampler, options.workers, device, keep_workers=True)

    @property
    def place(self) -> Place:
        """The epoch that is running, and the steps given out in it."""
        return Place(self._epoch, self._step, self.steps(self._epoch))

    @property
    def epoch_steps(self) -> int:
        """Batches in a whole epoch; with the identity sampler, in the first one."""
        return self._sampler.num_batches(1)

    @property
    def steps_done(self) -> int:
        """Steps since the start of the run; with the identity sampler, about as many."""
        return (self._epoch - 1) * self.epoch_steps + self._step

    def end_after(self, num_steps: int) -> None:
        """Let the epoch in which the run has done so many steps end there; 0: at its own end, as ever.

        Raises:
            UserError: epochs vary in length.
        """
        if num_steps and self._options.sampler == "identity":
            raise UserError("--num_steps: not with --sampler identity, whose epochs vary in length; give --num_epoch")
        self._num_steps = num_steps or None

    def steps(self, epoch: int) -> int:
        """Batches in an epoch."""
        whole = self._sampler.num_batches(epoch)
        return whole if self._num_steps is None else max(0, min(whole, self._num_steps - (epoch - 1) * whole))

    def seek(self, epoch: int, step: int = 0) -> None:
        """Let the next batch be the one after ``step`` batches of an epoch."""
        self._epoch, self._step = epoch, step

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """This process's share of the remaining batches of the epoch, and beside it the field ``share_bounds``: in
        which rows of the batch every process's share begins, and where the last one ends.

        Raises:
            ImageError: an image cannot be decoded; names the file.
        """
        self._sampler.set_epoch(self._epoch, self._step)
        steps = self.steps(self._epoch)
        for batch in self._batches if self._step < steps else ():
            self._step += 1
            yield batch
            if self._step == steps:
                break

    def again(self, fields: tuple[str, ...], epoch: int, plain: bool) -> _Batches:
        """Every pair once in random batches, whatever ``--sampler`` says: for a look at them before an epoch.

        Args:
            fields: batch fields.
            epoch: random choices differ from epoch to epoch, and from those of training in the same epoch.
            plain: without augmentation, and in the same full batches in every epoch.
        """
        sampler = random_sampler(len(self._pairs), self._options, visit=1, alike=plain)
        sampler.set_epoch(epoch)
        return _Batches(self._pairs.with_fields(fields, plain), sampler, self._options.workers, self._device)

    def close(self) -> None:
        """Give up the worker processes, which ignore signals and would otherwise keep an exiting program waiting."""
        self._batches = None

    def unaugmented(self) -> EvaluationSplit:
        """The training split as evaluation sees one: every image and caption once, as they are."""
        pairs = self._pairs
        return EvaluationSplit("train", pairs.records, pairs.images, pairs.form, self._options, self._device)
