"""Random choices for the Mannequins: every stream is named by integers, so neither workers nor order matter."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

WHO, LOOK, VIEW, WORDS = range(4)
"""What a stream is for; keeps, say, a new background from changing the captions."""


class Dice:
    """A counter-based random stream for one purpose of one image of one identity."""

    def __init__(self, *key: int) -> None:
        self._rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._rng.random() < probability

    def between(self, low: float, high: float) -> float:
        """A number from low to high."""
        return low + (high - low) * self._rng.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int((high - low + 1) * self._rng.random())

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, all equally likely."""
        return items[int(len(items) * self._rng.random())]

    def weighted(self, weights: Mapping[Item, float]) -> Item:
        """One of the keys, in proportion to its weight."""
        rest = sum(weights.values()) * self._rng.random()
        for item, weight in weights.items():
            rest -= weight
            if rest < 0:
                return item
        return next(reversed(weights))

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in random order."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.whole(0, last)
            result[last], result[other] = result[other], result[last]
        return result

    def noise(self, shape: tuple[int, ...], spread: float) -> np.ndarray:
        """Normal noise of this standard deviation."""
        return self._rng.standard_normal(shape, dtype=np.float32) * np.float32(spread)
