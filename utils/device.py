"""Where the network runs, and in what arithmetic."""

import logging
import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from utils import UserError
from utils.distributed import local_world_size
from utils.options import opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class DeviceOptions:
    """Flags of device and precision."""

    device: str = opt("auto", "auto, cpu, cuda or cuda:N")
    gpu_id: int | None = opt(None, "the CUDA device to use when there is one (published flag; --device cuda:N wins)")
    precision: str = opt(
        "auto", "arithmetic of the network; weights stay float32", choices=("auto", "fp32", "bf16", "fp16")
    )


@dataclass(frozen=True)
class TestDeviceOptions(DeviceOptions):
    """The same for testing, whose tables must not depend on the machine."""

    precision: str = opt(
        "fp32", "arithmetic of the network; read from the command line only", choices=("fp32", "auto", "bf16", "fp16")
    )


def pick_device(options: DeviceOptions) -> torch.device:
    """The device that the flags ask for; a CUDA device becomes the current one.

    Raises:
        UserError: names the flag when there is no such device.
    """
    device = _own_device(options) if dist.is_initialized() else _named_device(options)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return device


def _named_device(options: DeviceOptions) -> torch.device:
    if options.device == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if options.device == "auto" or (options.device == "cuda" and torch.cuda.is_available()):
        number = options.gpu_id or 0
        if number >= torch.cuda.device_count():
            log.warning("--gpu_id %d: not on this machine, using cuda:0 of %d", number, torch.cuda.device_count())
            number = 0
        return torch.device("cuda", number)
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", options.device):
        raise UserError(f"--device {options.device}: expected auto, cpu, cuda or cuda:N")
    device = torch.device(options.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {options.device}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def _own_device(options: DeviceOptions) -> torch.device:
    """The GPU that belongs to this process, or the CPU that all share."""
    gpus = torch.cuda.device_count()
    if options.device == "cpu" or (options.device == "auto" and not gpus):
        return torch.device("cpu")
    if options.device not in ("auto", "cuda"):
        raise UserError(
            f"--device {options.device}: torchrun gives every process a GPU of its own; leave the flag out, or use cpu"
        )
    if local_world_size() > gpus:
        raise UserError(
            f"torchrun --nproc_per_node {local_world_size()}: this machine has {gpus} GPU(s); start one process for "
            "each, or use --device cpu"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


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

    def __str__(self) -> str:
        """For the log: ``cpu, float32``."""
        return f"{self.device}, {self.name}"

    @property
    def name(self) -> str:
        """float32, bfloat16 or float16."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def needs_scaler(self) -> bool:
        """Whether gradients can underflow, so that the loss must be scaled."""
        return self.dtype == torch.float16


def pick_precision(options: DeviceOptions) -> Precision:
    """Device and arithmetic that the flags ask for; ``auto`` is bfloat16 where the hardware multiplies it natively.

    Raises:
        UserError: there is no such device, or fp16 is asked for on a CPU.
    """
    device = pick_device(options)
    if options.precision == "auto":
        return Precision(device, torch.bfloat16 if _native_bfloat16(device) else torch.float32)
    if options.precision == "fp16" and device.type == "cpu":
        raise UserError("--precision fp16: needs a GPU; use bf16 or fp32 on a CPU")
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return Precision(device, names[options.precision])


def available_cores() -> int:
    """The cores that this process may use, where the system says so; otherwise those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return not _cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    return set(info.read_text(encoding="utf-8").split()) if info.exists() else set()
