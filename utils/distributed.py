"""The W processes that share a run, and tensors across them, with gradients.

Every process computes the objective of the whole batch, and DistributedDataParallel takes the mean of their parameter
gradients. That mean is the gradient that one process with the whole batch has, because the backward pass of a gather
adds up, for the rows that a process gave, the gradients of all processes:

- Above a gather all processes compute the same, so the mean of their equal gradients is the gradient.
- Below it a process has W times the gradient that its own rows cause; the mean over processes is the sum over rows.
- What a process computes of its own rows alone (a share of a loss) enters the objective through :func:`all_sum`, which
  is a gather: again W times the gradient of its share, and again the mean is the sum.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# their names before PyTorch 2.13, and since
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _Gather(torch.autograd.Function):
    """Equally many rows of every process, in the order of ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        out = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
        _all_gather(out, rows.contiguous())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        own = grad.new_empty(len(grad) // world_size(), *grad.shape[1:])
        _reduce_scatter(own, grad.contiguous())
        return own


def gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows (n, ...) of all processes in the order of ranks: (sum of ``sizes``, ...).

    All processes must call it, also one without any row. Rows of different numbers travel padded.

    Args:
        rows: this process's; every process has the same type and the same other dimensions.
        sizes: number of rows of every process.
    """
    if world_size() == 1:
        return rows
    longest = max(sizes)
    if min(sizes) < longest:  # on all processes alike, so that their backward passes communicate in the same order
        rows = F.pad(rows, (*(0, 0) * (rows.ndim - 1), 0, longest - len(rows)))
    gathered = _Gather.apply(rows)
    if min(sizes) == longest:
        return gathered
    return torch.cat([part[:size] for part, size in zip(gathered.split(longest), sizes, strict=True)])


def all_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes; all must call it."""
    return value if world_size() == 1 else gather_rows(value[None], (1,) * world_size()).sum(dim=0)


def from_main(value: Tensor) -> Tensor:
    """The main process's tensor, in place of what the others made of the same shape: for random choices."""
    if world_size() > 1:
        dist.broadcast(value, src=0)
    return value


Result = TypeVar("Result")

PATIENCE = timedelta(minutes=60)
"""how long a process waits for the others: the main one may be drawing a data set or filling a cache"""


def join_processes() -> None:
    """Join the processes that torchrun started beside this one, if it was started so.

    Messages go by NCCL between GPUs and by gloo between CPUs, whatever device is chosen later.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or dist.is_initialized():
        return
    store, number, count = next(dist.rendezvous("env://", timeout=PATIENCE))
    # After a restart torchrun's store still holds the addresses of processes that are dead.
    store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)


def leave_processes() -> None:
    """Undo :func:`join_processes`, at the end of work that went well."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work on one batch."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world_size() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that logs, and writes files; True where there is only one."""
    return rank() == 0


@contextmanager
def main_first() -> Iterator[None]:
    """Run the block in the main process first, then in the others, which find what it left on the disk.

    Raises:
        SystemExit: in the others, where it failed in the main process (which raises its own error).
    """
    if not is_main():
        _main_to_all()
        yield
        return
    try:
        yield
    except BaseException:
        _main_to_all(failed=True)
        raise
    _main_to_all()


def on_main(function: Callable[[], Result]) -> Result:
    """What ``function`` returns in the main process; the others wait and get a copy.

    Raises:
        SystemExit: in the others, where it failed in the main process (which raises its own error).
    """
    try:
        result = function() if is_main() else None
    except BaseException:
        _main_to_all(failed=True)
        raise
    return _main_to_all(result)


def _main_to_all(result: Any = None, failed: bool = False) -> Any:
    """The main process's result, in every process; where it has failed, the others end."""
    content = [result, failed]
    if world_size() > 1:
        dist.broadcast_object_list(content)
    if content[1] and not is_main():
        raise SystemExit(2)
    return content[0]


def largest(value: int) -> int:
    """The largest of the numbers that all processes give; all must call it."""
    if world_size() == 1:
        return value
    shared = torch.tensor(value)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return int(shared)


# its name since PyTorch 2.13, and before
_SYNC = {"forward_sync_buffers", "broadcast_buffers"} & set(inspect.signature(DistributedDataParallel).parameters)

_KEEP_BUFFERS = {max(_SYNC): False}


def across_processes(model: nn.Module) -> nn.Module:
    """What to call in place of a model in training, so that its gradients are means over all processes.

    All start from the main process's weights and buffers. Buffers (memory banks) then stay alike because all processes
    make the same updates. Parameters that a step does not use must be the same ones in every step.
    """
    if not dist.is_initialized():
        return model
    return DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True, **_KEEP_BUFFERS)


def share_bounds(total: int, parts: int) -> list[int]:
    """Where the shares of ``parts`` processes in ``total`` rows begin, and where the last one ends.

    Shares follow each other in the order of ranks and differ by at most one row; they can be empty.
    """
    return [total * part // parts for part in range(parts + 1)]


def own_random_numbers() -> None:
    """Let every process but the main one draw numbers of its own (dropout), derived from a state that all share."""
    if not is_main():
        torch.manual_seed(int(torch.randint(2**62, ())) + rank())
