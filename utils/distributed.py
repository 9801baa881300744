"""Where the work runs: the processes that share it, the device of each, and its precision."""

import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.options import opt

log = logging.getLogger("descry")

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
        _hear_from_main()
    try:
        yield
    except BaseException:
        if is_main():
            _tell(None, failed=True)
        raise
    if is_main():
        _tell(None)


def on_main(function: Callable[[], Result]) -> Result:
    """What ``function`` returns in the main process; the others wait and get a copy.

    Raises:
        SystemExit: in the others, where it failed in the main process (which raises its own error).
    """
    if not is_main():
        return _hear_from_main()
    try:
        result = function()
    except BaseException:
        _tell(None, failed=True)
        raise
    _tell(result)
    return result


def _tell(result: object, failed: bool = False) -> None:
    if world_size() > 1:
        dist.broadcast_object_list([result, failed])


def _hear_from_main() -> object:
    heard: list = [None, None]
    dist.broadcast_object_list(heard)
    result, failed = heard
    if failed:
        raise SystemExit(2)
    return result


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


@dataclass(frozen=True)
class DeviceOptions:
    """Flags of device and precision."""

    device: str = opt("auto", "auto, cpu, cuda or cuda:N")
    gpu_id: int | None = opt(None, "the CUDA device to use when there is one (published flag, as cuda:N)")
    precision: str = opt(
        "auto", "arithmetic of the network; weights stay float32", choices=("auto", "fp32", "bf16", "fp16")
    )


def pick_device(options: DeviceOptions) -> torch.device:
    """The device that the flags ask for.

    Raises:
        ValueError: names the flag when there is no such device.
    """
    if dist.is_initialized():
        return _own_device(options)
    if options.device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        number = options.gpu_id or 0
        if number >= torch.cuda.device_count():
            log.warning("--gpu_id %d: not on this machine, using cuda:0 of %d", number, torch.cuda.device_count())
            number = 0
        return torch.device("cuda", number)
    try:
        device = torch.device(options.device)
    except RuntimeError:
        raise ValueError(f"--device {options.device}: expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {options.device}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def _own_device(options: DeviceOptions) -> torch.device:
    """The GPU that belongs to this process, or the CPU that all share."""
    gpus = torch.cuda.device_count()
    if options.device == "cpu" or (options.device == "auto" and not gpus):
        return torch.device("cpu")
    if options.device not in ("auto", "cuda"):
        raise ValueError(
            f"--device {options.device}: torchrun gives every process a GPU of its own; leave the flag out, or use cpu"
        )
    if local_world_size() > gpus:
        raise ValueError(
            f"torchrun --nproc_per_node {local_world_size()}: this machine has {gpus} GPU(s); start one process for "
            "each, or use --device cpu"
        )
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


@dataclass(frozen=True)
class Precision:
    """The arithmetic of network layers on a device."""

    device: torch.device
    dtype: torch.dtype
    """float32 means that autocast is off"""

    def __call__(self) -> AbstractContextManager:
        """Context for network layers; usable as ``with precision():``."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def needs_scaler(self) -> bool:
        """Whether gradients can underflow, so that the loss must be scaled."""
        return self.dtype == torch.float16


def pick_precision(options: DeviceOptions, device: torch.device) -> Precision:
    """``auto`` is bfloat16 where the hardware multiplies it natively, else float32.

    Raises:
        ValueError: fp16 on a CPU.
    """
    if options.precision == "auto":
        return Precision(device, torch.bfloat16 if _native_bfloat16(device) else torch.float32)
    if options.precision == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16: needs a GPU; use bf16 or fp32 on a CPU")
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return Precision(device, names[options.precision])


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = _cpu_flags()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _cpu_flags() -> set[str]:
    if not os.path.exists("/proc/cpuinfo"):  # noqa: PTH110
        return set()
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
        return {flag for line in file if line.startswith("flags") for flag in line.split()}
