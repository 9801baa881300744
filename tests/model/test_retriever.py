"""A training step asks nothing back from the device: on a GPU the program would stand still until it answers."""

from collections.abc import Collection

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.golden import Case, params

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "bincount"}
"""operators whose result, or its size, the host has to know"""
ALLOWED = {"eccl": {"bincount"}}
"""the memories of ECCL are updated in turns, whose number the host has to know (``model.losses.bank.turns``)"""


class NoWaiting(TorchDispatchMode):
    """Raises at an operator that the host would have to wait for on a GPU."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        super().__init__()
        self.forbidden = WAITING.difference(allowed)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith(("index", "_index_put")) and len(args) > 1 else None
        by_mask = isinstance(indices, list | tuple) and any(
            index is not None and index.dtype == torch.bool for index in indices
        )
        if name in self.forbidden or by_mask:
            raise AssertionError(f"{func} makes the host wait")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", params())
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_golden_step_does_not_wait(case: Case, epoch: int, monkeypatch: pytest.MonkeyPatch):
    model, batch = case.retriever().train(), case.batch()
    monkeypatch.setattr("model.losses.itm.refuse_one_identity", lambda pids: None)  # looks at CPU tensors only
    with NoWaiting(ALLOWED.get(case.json["system"], ())):
        step, views = model(batch, epoch)
        step.loss.backward()
        model.after_step(views)


def test_the_check_sees_what_waits():
    values = torch.arange(3.0)
    for waits in (lambda: values.sum().item(), lambda: values[values > 1], lambda: values.nonzero()):
        with NoWaiting(), pytest.raises(AssertionError, match="wait"):
            waits()
