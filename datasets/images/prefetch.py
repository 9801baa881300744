"""Pixels from the cache, read some batches ahead by threads of this process.

A loader process would have to hand every pixel over through shared memory, which takes several times as long as the
copy out of the cache; that copy releases the interpreter, so training continues meanwhile.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from torch import Tensor

Batch = TypeVar("Batch")

_THREADS = 2
_AHEAD = 3


def prefetched(batches: Iterable[Batch], pixels_of: Callable[[Batch], Tensor]) -> Iterator[tuple[Batch, Tensor]]:
    """Every batch with its pixels, in order.

    Args:
        batches: anything that determines which images are wanted.
        pixels_of: reads them; what it raises is raised here, when the turn of its batch has come.
    """
    waiting: deque[tuple[Batch, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(_THREADS, "pixels") as pool:
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(pixels_of, batch)))
                if len(waiting) > _AHEAD:
                    done, pixels = waiting.popleft()
                    yield done, pixels.result()
            while waiting:
                done, pixels = waiting.popleft()
                yield done, pixels.result()
        finally:
            for _, pixels in waiting:
                pixels.cancel()
