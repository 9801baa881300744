"""TODO"""

from collections.abc import Mapping

from prettytable import PrettyTable


def counts_table(splits: Mapping[str, tuple[int, int, int]]) -> PrettyTable:
    """Identities, images and captions of every split."""
    table = PrettyTable(["split", "identities", "images", "captions"])
    for split, numbers in splits.items():
        table.add_row([split, *(f"{number:,}" for number in numbers)])
    table.align = "r"
    return table
