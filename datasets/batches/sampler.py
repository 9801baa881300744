"""In which order training samples come.

The order is a function of (seed, epoch) alone. A batch is a list of (epoch, index): with the epoch beside the index, a
worker can make each sample's random choices a function of them, whatever it did before. A pass over the samples beside
training adds the number of its visit.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from utils import UserError
from utils.distributed import share_bounds


class BatchSampler(Sampler[list[tuple[int, ...]]]):
    """Batches of one epoch after another; the two samplers below say which."""

    def __init__(self, batch_size: int, seed: int, rank: int, world_size: int, visit: int = 0) -> None:
        if batch_size < 1:
            raise UserError(f"--batch_size {batch_size}: at least 1")
        if batch_size % world_size:
            raise UserError(f"--batch_size {batch_size} is not a multiple of the {world_size} processes that share it")
        self.batch_size, self.seed = batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._epoch, self._skip, self._visit = 1, 0, visit
        self._order = functools.lru_cache(1)(self.order)

    def order(self, epoch: int) -> list[np.ndarray]:
        """The sample numbers of every batch of an epoch, over all processes."""
        raise NotImplementedError

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch that is iterated next, without its first ``skip`` batches."""
        self._epoch, self._skip = epoch, skip

    def num_batches(self, epoch: int) -> int:
        """Batches in the whole of an epoch, whatever is skipped."""
        return len(self._order(epoch))

    def bounds(self) -> list[list[int]]:
        """Where the processes' shares of every batch that comes begin, and where the last one ends."""
        return [share_bounds(len(batch), self._world_size) for batch in self._order(self._epoch)[self._skip :]]

    def __len__(self) -> int:
        return max(0, self.num_batches(self._epoch) - self._skip)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        epoch, visit = self._epoch, (self._visit,) * bool(self._visit)
        for batch, bounds in zip(self._order(epoch)[self._skip :], self.bounds(), strict=True):
            share = batch[bounds[self._rank] : bounds[self._rank + 1]]
            yield [(epoch, index, *visit) for index in share.tolist()]

    def _rng(self, epoch: int) -> np.random.Generator:
        key = (epoch, self._visit) if self._visit else (epoch,)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


class RandomSampler(BatchSampler):
    """Every sample once per epoch, in random order.

    The last batch is smaller where the numbers do not divide, down to a single sample. Process ``rank`` of
    ``world_size`` takes its contiguous part of every batch; of a last batch with fewer samples than processes, some
    take an empty part.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        visit: int = 0,
        alike: bool = False,
    ) -> None:
        """``visit``: 0 in training, another number for another pass over the samples, which has an order of its own.

        ``alike``: the same batches in every epoch, all of them full: the last one takes samples of the first as well.
        """
        super().__init__(batch_size, seed, rank, world_size, visit)
        self._alike = alike
        if not num_samples:
            raise UserError(f"--batch_size {batch_size}: 0 training samples do not make a batch")
        self._num_samples = num_samples

    def order(self, epoch: int) -> list[np.ndarray]:
        """See the base class."""
        samples = self._rng(0 if self._alike else epoch).permutation(self._num_samples)
        if self._alike:
            samples = np.resize(samples, math.ceil(len(samples) / self.batch_size) * self.batch_size)
        return [samples[start : start + self.batch_size] for start in range(0, len(samples), self.batch_size)]


class EqualSampler(BatchSampler):
    """As many samples of each of several sets, in random order; an epoch has about as many as there are.

    A set with fewer takes its samples several times, all equally often but for one; of a larger set, each epoch takes
    other samples. The last batch is smaller where the numbers do not divide.
    """

    def __init__(self, sets: Sequence[int], batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1) -> None:
        """``sets``: which set each sample belongs to."""
        super().__init__(batch_size, seed, rank, world_size)
        sets = np.asarray(sets)
        self._samples = [np.flatnonzero(sets == number) for number in np.unique(sets)]
        self._size = max(1, len(sets) // len(self._samples))

    def order(self, epoch: int) -> list[np.ndarray]:
        """See the base class."""
        rng = self._rng(epoch)
        chosen = []
        for samples in self._samples:
            rounds = [rng.permutation(samples) for _ in range(math.ceil(self._size / len(samples)))]
            chosen.append(np.concatenate(rounds)[: self._size])
        order = rng.permutation(np.concatenate(chosen))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]


def rows_by_identity(pids: Sequence[int]) -> dict[int, np.ndarray]:
    """Where each identity stands in ``pids``; both in ascending order."""
    ids, identity = np.unique(np.asarray(pids, np.int64), return_inverse=True)
    rows = np.split(np.argsort(identity, kind="stable"), np.cumsum(np.bincount(identity))[:-1])
    return dict(zip(ids.tolist(), rows, strict=False))  # of no rows np.split makes one part


class IdentitySampler(BatchSampler):
    """Batches of P identities with K samples each, P = ``batch_size`` / K.

    The field's rule: in each epoch the samples of an identity are shuffled and cut into groups of K, what remains
    being left out; an identity with fewer than K gives one group, drawn with replacement. A batch takes the next group
    of each of P identities, chosen at random among those that have groups left; the epoch ends when fewer than P
    have. Its length therefore varies a little from epoch to epoch. All batches are full.
    """

    def __init__(
        self,
        pids: Sequence[int],
        batch_size: int,
        num_instance: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """``pids``: the identity of each sample. Raises UserError where P x K batches cannot be made."""
        super().__init__(batch_size, seed, rank, world_size)
        if num_instance < 1 or batch_size % num_instance:
            raise UserError(
                f"--batch_size {batch_size} is not a multiple of --num_instance {num_instance}; "
                "a batch is P identities x num_instance samples"
            )
        self._num_instance = num_instance
        rows = rows_by_identity(pids)
        if len(rows) < batch_size // num_instance:
            raise UserError(
                f"--batch_size {batch_size} with --num_instance {num_instance} takes {batch_size // num_instance} "
                f"identities per batch, but there are only {len(rows)}; use a smaller batch or more samples of each"
            )
        self._samples = list(rows.values())

    def order(self, epoch: int) -> list[np.ndarray]:
        """See the base class."""
        rng = self._rng(epoch)
        groups = [self._groups(rng, samples) for samples in self._samples]
        available = list(range(len(groups)))
        batches = []
        while len(available) * self._num_instance >= self.batch_size:
            chosen = rng.choice(len(available), self.batch_size // self._num_instance, replace=False)
            batches.append(np.concatenate([groups[available[slot]].pop() for slot in chosen]))
            for slot in sorted(chosen.tolist(), reverse=True):
                if not groups[available[slot]]:
                    available[slot] = available[-1]
                    available.pop()
        return batches

    def _groups(self, rng: np.random.Generator, samples: np.ndarray) -> list[np.ndarray]:
        size = self._num_instance
        if len(samples) < size:
            return [rng.choice(samples, size)]
        shuffled = rng.permutation(samples)
        return [shuffled[start : start + size] for start in range(0, len(samples) - size + 1, size)]
