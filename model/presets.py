"""What the command line of a published program implies beyond its flags."""

from collections.abc import Collection, Mapping

from model.losses import HEADS
from model.losses.bank import BankHead

PHP_WEIGHTS: Mapping[str, float] = {"itc": 5.0, "mlm": 0.5}
"""the published PHP weighs these losses so, without a flag; the loss aux, which it alone has, stands for it"""


def preset_weights(names: Collection[str]) -> Mapping[str, float]:
    """Weights of losses that hold where no flag gives one."""
    return PHP_WEIGHTS if "aux" in names else {}


def momentum_flag(names: Collection[str]) -> str:
    """The flag that the published name ``--momentum`` means with these losses."""
    return "bank_momentum" if any(issubclass(HEADS[name], BankHead) for name in names) else "sgd_momentum"
