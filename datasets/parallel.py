"""Work on many files in several processes, with a progress bar."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from utils import UserError
from utils.log import hide_bar

Item = TypeVar("Item")
Result = TypeVar("Result")


def chunked(items: Sequence[Item], size: int = 32) -> list[Sequence[Item]]:
    """The items in pieces of ``size``: large enough that passing them to a process costs nothing."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class BatchLoader(DataLoader):
    """A data loader over a data set that makes whole batches, or returns the exception that kept it from doing so."""

    def __init__(
        self, dataset: TorchDataset, batches: Iterable[Sequence[Any]], workers: int, device: torch.device, **more: Any
    ) -> None:
        """What to load, the keys of every batch, how many processes do so, and where the batches will go."""
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_as_is,
            worker_init_fn=leave_signals_to_the_loop,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # its own, or every pass would advance the one that dropout draws from
            **more,
        )

    def __iter__(self) -> Iterator[Any]:
        before = multiprocessing.active_children()
        try:
            batches = super().__iter__()
        except OSError:  # those that were started ignore the signal by which Python would end them, and wait for it
            for process in set(multiprocessing.active_children()) - set(before):
                process.kill()
            raise
        for batch in batches:
            if isinstance(batch, Exception):
                try:
                    raise batch
                finally:
                    # Held by its own traceback, the exception would keep the worker processes, and the program would
                    # wait for them at its end, for ever: they ignore signals.
                    del batch
            yield batch


def _as_is(batch: Item) -> Item:
    return batch


def leave_signals_to_the_loop(worker: int) -> None:
    """A terminal sends Ctrl-C, and torchrun SIGTERM, to the workers of a data loader too.

    The loop needs them to finish its step. They end when it closes their queue, or dies.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run_chunks(
    function: Callable[[Sequence[Item]], Result],
    chunks: Sequence[Sequence[Item]],
    workers: int,
    description: str,
    unit: str = "image",
) -> Iterator[Result]:
    """Apply ``function`` to every chunk, in any order, in ``workers`` processes (0 or 1: in this one).

    The progress bar counts items, which are ``unit`` by name, and keeps quiet where stderr is not a terminal.

    Raises:
        UserError: a process died, by lack of memory for instance.
        Exception: whatever ``function`` raises.
    """
    workers = min(workers, len(chunks))
    with tqdm(total=sum(map(len, chunks)), desc=description, unit=unit, disable=hide_bar()) as bar:
        if workers <= 1:
            for chunk in chunks:
                yield function(chunk)
                bar.update(len(chunk))
            return
        # Forked processes need no second import of the main program, and touch neither torch nor a GPU.
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(workers, context, start_worker, (os.getpid(),))
        try:
            futures = {pool.submit(function, chunk): len(chunk) for chunk in chunks}
            started = multiprocessing.active_children()
            for future in as_completed(futures):
                yield future.result()
                bar.update(futures[future])
        except BrokenProcessPool:
            ended = {process.pid: process.exitcode for process in started}
            dead = [f"{pid} ({_ending(code)})" for pid, code in ended.items() if code not in (None, 0, -signal.SIGTERM)]
            who = f"worker process {', '.join(dead)}" if dead else "a worker process"  # one may end before it is listed
            raise UserError(
                f"{description}: {who} died, perhaps for lack of memory; start again with fewer --num_workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def start_worker(parent: int) -> None:
    """Leave signals to the parent, and end with it: a killed parent closes no queue, so its workers would hang.

    SIGTERM ends a worker without a word: the pool sends it when another worker has died.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
