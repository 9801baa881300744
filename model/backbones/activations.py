"""Activation functions of the perceptrons, by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _QuickGELU(torch.autograd.Function):
    """silu(z) / 1.702 with z = 1.702 x. Its derivative is that of silu at z, so that z alone is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        z = 1.702 * x
        ctx.save_for_backward(z)
        return F.silu(z) / 1.702  # not in place: compiled by PyTorch 2.11 that gives wrong gradients

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.ops.aten.silu_backward(grad, *ctx.saved_tensors)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation that OpenAI trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return _QuickGELU.apply(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "quick_gelu": QuickGELU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
}
