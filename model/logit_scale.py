"""The factor of cosine similarities as a parameter, shared by every loss that learns it."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from model.backbones.spec import BackboneSpec
from model.shared_part import SharedPart
from utils.options import opt

MOST = 100.0
"""CLIP's bound of the factor (Radford et al., ICML 2021, section 2.5)"""
UNTRAINED = math.log(1 / 0.07)
"""logarithm of the factor that CLIP's own training starts from"""


@dataclass(frozen=True)
class ScaleOptions:
    """Flags of the learnable scale."""

    scale_clamp: str = opt(
        "value",
        "what keeps the learned scale of nitc and ritc at 100 or below: the value that they use, as TBPS-CLIP was "
        "published (its logarithm may grow on), or the parameter itself after every step",
        choices=("value", "parameter"),
    )


class LogitScale(SharedPart):
    """exp of a scalar parameter, at most :data:`MOST`."""

    Options: ClassVar[type] = ScaleOptions
    roles: ClassVar[dict[str, str]] = {"": "scale"}

    def __init__(self, options: ScaleOptions, start: float = UNTRAINED) -> None:
        """``start``: the logarithm of the factor."""
        super().__init__()
        self.options = options
        self.log_scale = nn.Parameter(torch.tensor(float(start)))

    @classmethod
    def built_for(cls, options: ScaleOptions, spec: BackboneSpec) -> Self:
        """Starts from the scale that the towers were trained with, if their weights say it."""
        return cls(options, UNTRAINED if spec.log_scale is None else spec.log_scale)

    def forward(self) -> Tensor:
        """The factor, a scalar.

        Where ``--scale_clamp value`` holds it at its bound, the gradient is that of the unbounded one, as published:
        the parameter can still fall.
        """
        scale = self.log_scale.exp()
        return scale + (scale.clamp(max=MOST) - scale).detach()

    @torch.no_grad()
    def after_step(self) -> None:
        """Clamp the parameter, if asked."""
        if self.options.scale_clamp == "parameter":
            self.log_scale.clamp_(max=math.log(MOST))
