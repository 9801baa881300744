"""Tensors across the W processes of a run, with gradients.

Every process computes the objective of the whole batch, and DistributedDataParallel takes the mean of their parameter
gradients. That mean is the gradient that one process with the whole batch has, because the backward pass of a gather
adds up, for the rows that a process gave, the gradients of all processes:

- Above a gather all processes compute the same, so the mean of their equal gradients is the gradient.
- Below it a process has W times the gradient that its own rows cause; the mean over processes is the sum over rows.
- What a process computes of its own rows alone (a share of a loss) enters the objective through :func:`all_sum`, which
  is a gather: again W times the gradient of its share, and again the mean is the sum.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from utils.distributed import world_size

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
