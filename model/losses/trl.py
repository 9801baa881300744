"""Triplet ranking loss over the hardest negative, which RDE compares TAL with."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.losses.base import same_identity
from model.losses.hinge import HingeLoss, HingeOptions, positive_similarity
from utils.options import opt


@dataclass(frozen=True)
class TRLOptions(HingeOptions):
    """Flags of TRL."""

    trl_floor: bool = opt(
        True,
        "TRL: the hardest negative counts as at least 0, as published; otherwise as it is",
    )


def trl_rows(cosine_BB: Tensor, pids_B: Tensor, tau: float, margin: float, floor: bool) -> Tensor:
    """(B,) triplet ranking loss over the hardest negative of each row (Qin et al., CVPR 2024), in cosine.

    ``tau``: temperature of the weights of positives; ``floor``: see :class:`TRLOptions`.
    """
    same_BB = same_identity(pids_B).bool()
    hardest_B = cosine_BB.masked_fill(same_BB, 0.0 if floor else -torch.inf).amax(dim=1)
    hardest_B = hardest_B.masked_fill(same_BB.all(dim=1), -1.0 - margin)  # without a negative nothing is to be gained
    return (margin - positive_similarity(cosine_BB, same_BB, tau) + hardest_B).clamp(min=0)


class TRL(HingeLoss):
    """TRL, summed over pairs and both directions."""

    Options = TRLOptions

    def rows(self, logits_BB: Tensor, pids_B: Tensor) -> Tensor:
        """See the base class; the logits are cosines."""
        options: TRLOptions = self.options
        return trl_rows(logits_BB, pids_B, options.temperature, options.distance, options.trl_floor)
