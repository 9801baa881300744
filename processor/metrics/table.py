"""The field's table."""

from collections.abc import Mapping

from prettytable import PrettyTable

from processor.metrics import METRICS


def metrics_table(rows: Mapping[str, Mapping[str, float]], title: str = "task") -> PrettyTable:
    """Metrics with three decimals: one row per task (t2i, i2t), or per what ``title`` says."""
    table = PrettyTable([title, *METRICS])
    table.align[title] = "l"
    for task, metrics in rows.items():
        table.add_row([task, *(f"{metrics[name]:.3f}" for name in METRICS)])
    return table
