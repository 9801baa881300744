"""TODO"""

from collections.abc import Mapping

import torch
from prettytable import PrettyTable
from torch import Tensor


def expert_table(use: Mapping[str, Tensor]) -> PrettyTable:
    """Tokens that chose each expert, and the entropy of an expert's share in nats (at most the log of their number).

    Args:
        use: (blocks, experts) counts by modality.
    """
    experts = next(iter(use.values())).shape[1]
    table = PrettyTable(["block", "tokens of", *(f"expert {number}" for number in range(experts)), "entropy"])
    for block in range(len(next(iter(use.values())))):
        for name, counts_NE in use.items():
            share_E = counts_NE[block].double() / counts_NE[block].sum().clamp(min=1)
            entropy = torch.special.entr(share_E).sum().item()
            table.add_row([block, name, *(f"{count:,}" for count in counts_NE[block].tolist()), f"{entropy:.3f}"])
    table.align = "r"
    return table
