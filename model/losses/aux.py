"""Load balance of mixtures of experts."""

from dataclasses import dataclass

from model.adapters.experts import load_balance
from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm
from utils.options import opt


@dataclass(frozen=True)
class AuxOptions:
    """Flags of the aux loss."""

    aux_factor: float = opt(3.0, "weight of the aux loss")


class Aux(LossHead):
    """Load balance of the image pass plus that of the text pass (PHP; Fedus et al., JMLR 2022, eq. 4)."""

    Options = AuxOptions
    adapters = ("parsing",)
    weight_flag = "aux_factor"

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar without unit."""
        return LossTerm(load_balance(views.image().routing) + load_balance(views.text().routing), {})
