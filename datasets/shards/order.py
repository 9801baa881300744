"""The order of samples in an epoch over shards: computed from (seed, epoch, position), never stored as a whole.

Each folder is cut into blocks of neighbouring images. The blocks of a folder come in a random order, and the samples of
about a hundred blocks, of all folders together, are shuffled among themselves. So samples from all over the shards meet
in a batch, while what is read at a time are a hundred stretches of a few megabytes.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

_WINDOW = 65_536
"""samples that are shuffled among themselves"""
_STREAM, _WITHIN = 1, 2
"""what random numbers are for"""


class Stream:
    """The samples of a folder, for ever: every sample once, in a random order of blocks, then once more, and so on."""

    def __init__(self, edges: np.ndarray, seed: tuple[int, ...]) -> None:
        """``edges``: (K + 1,) int64; block k holds the samples ``edges[k]`` to ``edges[k + 1]`` - 1, from 0 on."""
        self._edges, self._seed = edges, seed
        self._round = functools.lru_cache(2)(self._blocks_of_round)

    def __len__(self) -> int:
        return int(self._edges[-1])

    def samples(self, start: int, stop: int) -> np.ndarray:
        """(``stop`` - ``start``,) int64: the samples at these places of the stream."""
        parts = []
        while start < stop:
            number, first = divmod(start, len(self))
            last = min(first + stop - start, len(self))
            place = np.arange(first, last)
            blocks, ends = self._round(number)
            turn = np.searchsorted(ends, place, "right")
            parts.append(self._edges[blocks[turn] + 1] - (ends[turn] - place))
            start += last - first
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _blocks_of_round(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The blocks in the order of a round, and the place behind the last sample of each."""
        blocks = np.random.default_rng((*self._seed, number)).permutation(len(self._edges) - 1)
        return blocks, np.cumsum(np.diff(self._edges)[blocks])


class ShardOrder:
    """Which sample stands at which position of an epoch."""

    def __init__(self, edges: Sequence[np.ndarray], mix: Sequence[float], seed: int) -> None:
        """
        Args:
            edges: of the blocks of every folder, see :class:`Stream`; the samples of a folder are numbered behind those
                of the folders before it.
            mix: how often the samples of each folder come in an epoch; 0.5: every other one, in the next epoch the
                others.
            seed: of all orders.
        """
        self._streams = [Stream(each, (seed, _STREAM, number)) for number, each in enumerate(edges)]
        self._offsets = np.cumsum([0, *map(len, self._streams)])[:-1].tolist()
        self._visits = [max(1, round(weight * len(stream))) for weight, stream in zip(mix, self._streams, strict=True)]
        self._seed = seed
        self._windows = max(1, round(len(self) / _WINDOW))
        self._edges = [sum(self._before(window)) for window in range(self._windows + 1)]
        self._shuffled = functools.lru_cache(2)(self._shuffled_window)

    def __len__(self) -> int:
        """Samples in an epoch."""
        return sum(self._visits)

    def samples(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """(``stop`` - ``start``,) int64: the samples at these positions of an epoch, which counts from 1."""
        parts = []
        while start < stop:
            window = int(np.searchsorted(self._edges, start, "right")) - 1
            first, end = self._edges[window], min(self._edges[window + 1], stop)
            parts.append(self._shuffled(epoch, window)[start - first : end - first])
            start = end
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _before(self, window: int) -> list[int]:
        """How many visits of each folder come before a window: in every window each has about its share."""
        return [visits * window // self._windows for visits in self._visits]

    def _shuffled_window(self, epoch: int, window: int) -> np.ndarray:
        starts, stops = self._before(window), self._before(window + 1)
        parts = []
        for number, stream in enumerate(self._streams):
            begun = (epoch - 1) * self._visits[number]
            parts.append(self._offsets[number] + stream.samples(begun + starts[number], begun + stops[number]))
        return np.random.default_rng((self._seed, _WITHIN, epoch, window)).permutation(np.concatenate(parts))


def block_edges(first_S: np.ndarray, size: int) -> np.ndarray:
    """(K + 1,) images at which blocks of about ``size`` images begin, none of which lies in two shards.

    ``first_S``: (S + 1,) the first image of every shard, and behind the last.
    """
    edges = [0]
    for first, stop in zip(first_S[:-1].tolist(), first_S[1:].tolist(), strict=True):
        blocks = math.ceil((stop - first) / size)
        edges += [first + (stop - first) * (block + 1) // blocks for block in range(blocks)]
    return np.array(edges, np.int64)
