"""The field's table."""

from collections.abc import Iterable, Mapping, Sequence

from prettytable import PrettyTable

_BESIDE = ("epoch", "unmatched")
"""what stands beside the metrics of a result"""


def metric_names(rows: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    """The metrics that any of the rows has, in their order."""
    return tuple(dict.fromkeys(name for metrics in rows for name in metrics if name not in _BESIDE))


def metric_cells(metrics: Mapping[str, float], names: Sequence[str]) -> list[str]:
    """Metrics with three decimals, empty where a row lacks one."""
    return [f"{metrics[name]:.3f}" if name in metrics else "" for name in names]


def metrics_table(rows: Mapping[str, Mapping[str, float]], title: str = "task") -> PrettyTable:
    """Metrics in percent: one row per task (t2i, i2t), or per what ``title`` says."""
    names = metric_names(rows.values())
    table = PrettyTable([title, *names])
    table.align[title] = "l"
    for task, metrics in rows.items():
        table.add_row([task, *metric_cells(metrics, names)])
    return table
