"""What tests of losses against nested loops share."""

import math

import torch


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normally distributed numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(row: list[float]) -> list[float]:
    """In a loop."""
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]
