"""Devices that become the current one, and the arithmetic that flags ask for."""

import logging

import pytest
import torch

from utils import UserError
from utils import device as devices
from utils.device import DeviceOptions, Precision, pick_device, pick_precision


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with four GPUs; the numbers of those that became current."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", current.append, raising=False)  # below torch's own checks
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if device.index else (7, 5))
    return current


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("there is no GPU"))


@pytest.mark.parametrize(
    ("flags", "device", "number"),
    [
        ({}, "cuda:0", 0),
        ({"gpu_id": 2}, "cuda:2", 2),
        ({"device": "cuda:3"}, "cuda:3", 3),
        ({"device": "cuda:1", "gpu_id": 2}, "cuda:1", 1),
        ({"device": "cuda"}, "cuda:0", 0),
        ({"device": "cuda", "gpu_id": 2}, "cuda:2", 2),
    ],
)
def test_a_gpu_becomes_the_current_device(gpus: list[int], flags: dict, device: str, number: int):
    """Otherwise whatever names no device, as a random generator or a kernel, takes the first one."""
    assert pick_device(DeviceOptions(**flags)) == torch.device(device)
    assert gpus == [number]


def test_a_gpu_that_is_not_there(gpus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("descry"), "propagate", True)
    assert pick_device(DeviceOptions(gpu_id=7)) == torch.device("cuda:0")
    assert "--gpu_id 7: not on this machine, using cuda:0 of 4" in caplog.text
    assert gpus == [0]
    with pytest.raises(UserError, match="--device cuda:9: this machine has 4"):
        pick_device(DeviceOptions("cuda:9"))
    with pytest.raises(UserError, match="--device abacus: expected auto, cpu"):
        pick_device(DeviceOptions("abacus"))


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu():
    for flags in ({}, {"gpu_id": 2}, {"device": "cpu"}):
        assert pick_device(DeviceOptions(**flags)) == torch.device("cpu")
    with pytest.raises(UserError, match=r"--device cuda: this machine has 0 CUDA device\(s\)"):
        pick_device(DeviceOptions("cuda"))
    with pytest.raises(UserError, match="--precision fp16: needs a GPU"):
        pick_precision(DeviceOptions(precision="fp16"))


def test_auto_is_bfloat16_where_the_gpu_multiplies_it(gpus):
    assert pick_precision(DeviceOptions(gpu_id=1)) == Precision(torch.device("cuda:1"), torch.bfloat16)
    assert pick_precision(DeviceOptions()) == Precision(torch.device("cuda:0"), torch.float32)
    fp16 = pick_precision(DeviceOptions(precision="fp16"))
    assert fp16.needs_scaler and not pick_precision(DeviceOptions(precision="bf16")).needs_scaler


@pytest.mark.usefixtures("no_gpu")
def test_testing_computes_in_float32_whatever_the_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "_cpu_flags", lambda: {"avx512_bf16"})
    assert pick_precision(DeviceOptions()).name == "bfloat16"
    assert str(pick_precision(devices.TestDeviceOptions())) == "cpu, float32"
    assert pick_precision(devices.TestDeviceOptions(precision="auto")).name == "bfloat16"
    monkeypatch.setattr(devices, "_cpu_flags", set)
    assert pick_precision(DeviceOptions()).name == "float32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_context_sets_the_arithmetic_of_layers(dtype: torch.dtype):
    with Precision(torch.device("cpu"), dtype)():
        assert torch.nn.Linear(4, 4)(torch.ones(2, 4)).dtype == dtype
