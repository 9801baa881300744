"""How tokens were divided among PHP's experts, for the log and the report.

Shape letter: E experts.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from utils.tables import Table


def by_block(use: Mapping[str, Tensor]) -> Iterator[tuple[int, str, Tensor]]:
    """(block, modality, counts_E) from the (blocks, E) counts of every modality."""
    for block, blocks in enumerate(zip(*use.values(), strict=True)):
        yield from ((block, name, counts_E) for name, counts_E in zip(use, blocks, strict=True))


def expert_table(use: Mapping[str, Tensor]) -> Table:
    """Tokens that chose each expert, and the entropy of their shares in nats; ``use``: (blocks, E) by modality."""
    rows = []
    for block, name, counts_E in by_block(use):
        share_E = counts_E.double() / counts_E.sum().clamp(min=1)
        entropy = torch.special.entr(share_E).sum().item()
        rows.append((f"{block}", name, *(f"{count:,}" for count in counts_E.tolist()), f"{entropy:.3f}"))
    experts = (f"expert {number}" for number in range(len(rows[0]) - 3))
    return Table(("block", "tokens of", *experts, "entropy"), tuple(rows), text_columns=2)
