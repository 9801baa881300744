"""Views that are one operation after another, all of a list or some of it drawn for each sample.

Shape letters: B batch, H height, W width, S slots of a sample.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from datasets.augmentation.operations import MOST_NUMBERS, Operation, of_rows
from datasets.augmentation.pixels import Colour, on_device
from datasets.augmentation.view import View

_NOTHING = -1.0


class Composition(View):
    """Operations in the order of the list, or ``choose`` of them in random order; on images in 0..1."""

    def __init__(self, operations: Sequence[Operation], choose: int | None = None, distinct: bool = True) -> None:
        """``distinct``: whether the chosen ones are different, or each is drawn anew (with replacement)."""
        self._operations, self._choose, self._distinct = tuple(operations), choose, distinct
        self.needs_original = any(operation.needs_original for operation in operations)

    def draw(self, rng: np.random.Generator, size: tuple[int, int], original: tuple[int, int]) -> np.ndarray:
        """(S * (1 + MOST_NUMBERS),) float32: in each slot the operation's place in the list, and its numbers."""
        order = range(len(self._operations))
        if self._choose is not None:
            order = rng.choice(len(self._operations), self._choose, replace=not self._distinct).tolist()
        slots = np.zeros((len(order), 1 + MOST_NUMBERS), np.float32)
        for slot, place in zip(slots, order, strict=True):
            operation = self._operations[place]
            done = rng.random() < operation.probability
            numbers = operation.draw(rng, size, original) if done else ()
            slot[0] = place if done else _NOTHING
            slot[1 : 1 + len(numbers)] = numbers
        return slots.flatten()

    def apply(self, images: Tensor, numbers: Tensor, mean: Colour, std: Colour) -> Tensor:
        """See the base class."""
        if not len(images):  # the share of a process in a last batch that is smaller than their number
            return images.float()
        slots_BS = numbers.numpy().reshape(len(images), -1, 1 + MOST_NUMBERS)
        if images.device.type == "cpu":
            views = one_by_one(lambda row: self._changed(images[row], slots_BS[row]), len(images))
        else:
            views = self._changed(images, slots_BS)
        return views.sub_(on_device(mean, images.device)).div_(on_device(std, images.device))

    def _changed(self, images: Tensor, slots_BS: np.ndarray) -> Tensor:
        images = images.float().div_(255)
        for slot_B in slots_BS.transpose(1, 0, 2):
            for place in np.unique(slot_B[:, 0]):
                if place == _NOTHING:
                    continue
                rows = np.flatnonzero(slot_B[:, 0] == place)
                change = functools.partial(self._operations[int(place)].apply, numbers=slot_B[rows, 1:])
                images = of_rows(images, rows, change)
        return images


def one_by_one(change: Callable[[slice], Tensor], total: int) -> Tensor:
    """``change`` of each of ``total`` images, joined: on a CPU an image stays in the cache from operation to operation.

    A thread for each core takes the next image: operations on one are too short to be shared among threads.
    """
    before = torch.get_num_threads()
    try:
        return torch.cat(list(_threads(before).map(change, (slice(row, row + 1) for row in range(total)))))
    finally:
        torch.set_num_threads(before)  # what the threads say of themselves would hold for all that start later


@functools.cache
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, "views", initializer=torch.set_num_threads, initargs=(1,))
