"""The exponential moving average of weights, which is evaluated and saved in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """``average = decay * average + (1 - decay) * weight`` after every step, from the first weights on."""

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        """Of the parameters of ``model`` that are trained; without a ``decay`` of none, and everything does nothing."""
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._parameters = {} if decay is None else trained
        self._average = {name: value.detach().clone() for name, value in self._parameters.items()}
        self._add = get_ema_multi_avg_fn(decay or 0.0)

    @torch.no_grad()
    def update(self) -> None:
        """Count the present weights in."""
        if self._average:
            self._add([*self._average.values()], [*self._parameters.values()], 0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average as its weights during the block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self._parameters.items():
            other = self._average[name].clone()
            self._average[name].copy_(value)
            value.copy_(other)

    def state_dict(self) -> dict[str, Tensor]:
        """The average by the names of the parameters."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Undo :meth:`state_dict`. Raises ValueError where names or shapes differ."""
        if {name: value.shape for name, value in state.items()} != {n: v.shape for n, v in self._average.items()}:
            raise ValueError("its moving average is of other weights, or --ema was not the same")
        for name, value in state.items():
            self._average[name].copy_(value)
