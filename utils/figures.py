"""Diagrams with matplotlib, small enough to be read on a phone and in a column of a paper.

Slow to import; whoever may do without a figure imports this where it is drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.files import replacing
from utils.history import Entry

SIZE = (4.2, 2.9)
"""width and height in inches of one diagram"""
DPI = 220
_COLOURS = ("#3566a8", "#c8553d", "#2f8f5b", "#8a5fa8", "#b8860b", "#4a9aa8", "#777777")
_MATCH, _OTHER = _COLOURS[2], _COLOURS[1]
_FONT = 9


def save_png(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a file that may be there already; whoever looks at it never sees half of it."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=dpi)


def draw_cmc(share_K: Sequence[float]) -> Figure:
    """R@k over k; ``share_K``: percent of queries with a match among the first 1, 2, ..."""
    figure, (axes,) = _empty()
    axes.plot(range(1, len(share_K) + 1), share_K, color=_COLOURS[0])
    axes.set_xscale("log")
    marks = [k for k in (1, 5, 10, 50, 100) if k <= len(share_K)]
    axes.set_xticks(marks, [str(k) for k in marks])
    axes.minorticks_off()
    for k in [k for k in (1, 5, 10) if k <= len(share_K)]:
        axes.annotate(f"R{k} {share_K[k - 1]:.1f}", (k, share_K[k - 1]), (7, -9), textcoords="offset points")
        axes.plot(k, share_K[k - 1], "o", color=_COLOURS[0], markersize=4)
    _label(axes, "k", "queries with a match\namong the first k (%)")
    room = 0.12 * (100 - share_K[0]) + 1  # the first label stands below its point
    axes.set_ylim(share_K[0] - room, 100 + room / 3)
    return figure


def draw_histograms(match_N: Sequence[int], other_N: Sequence[int]) -> Figure:
    """Densities of the similarities of matching and other pairs, each with area 1; equal bins over [-1, 1]."""
    figure, (axes,) = _empty()
    width = 2 / len(match_N)
    edges = [-1 + width * number for number in range(len(match_N) + 1)]
    used = [n for n, counts in enumerate(zip(match_N, other_N, strict=True)) if any(counts)]
    for counts, colour, name in ((other_N, _OTHER, "not matching"), (match_N, _MATCH, "matching")):
        total = max(sum(counts), 1)
        axes.stairs([count / total / width for count in counts], edges, fill=True, alpha=0.55, color=colour, label=name)
    axes.set_xlim(edges[max(min(used) - 1, 0)], edges[min(max(used) + 2, len(edges) - 1)])
    _legend_above(axes)
    _label(axes, "cosine similarity", "density")
    return figure


def draw_bars(shares: Mapping[str, float], counts: Mapping[str, int], x: str, y: str) -> Figure:
    """One bar per name, with how many it stands for written on it."""
    figure, (axes,) = _empty()
    bars = axes.bar(list(shares), list(shares.values()), color=_COLOURS[0], width=0.8)
    axes.bar_label(bars, [f"n={counts[name]:,}" for name in shares], fontsize=_FONT - 2, padding=2)
    axes.margins(y=0.15)
    _label(axes, x, y)
    return figure


def draw_stacked(rows: Mapping[str, Sequence[float]], parts: Sequence[str]) -> Figure:
    """One horizontal bar of 100 % per name, divided among the parts."""
    figure, (axes,) = _empty(height=0.9 + 0.26 * len(rows))
    left = [0.0] * len(rows)
    for number, part in enumerate(parts):
        widths = [100 * values[number] / (sum(values) or 1) for values in rows.values()]
        axes.barh(list(rows), widths, left=left, label=part, color=_COLOURS[number % len(_COLOURS)])
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    _legend_above(axes)
    _label(axes, "share (%)", "")
    return figure


def draw_curves(history: Sequence[Entry]) -> Figure:
    """Losses, learning rates, and R1 and mAP over the epochs of a run."""
    figure, (losses, rates, scores) = _empty(3)
    train = [entry for entry in history if entry.train]
    names = dict.fromkeys(name for entry in train for name in entry.train if name.endswith("loss"))
    if len(names) == 2:  # the only loss is the total
        del names[next(name for name in names if name != "loss")]
    for name in names:
        _line(losses, name.removesuffix("_loss"), [(entry.position, entry.train.get(name)) for entry in train])
    for name in dict.fromkeys(name for entry in train for name in entry.lr):
        _line(rates, f"base {name}", [(entry.position, entry.lr.get(name)) for entry in train], steps=True)
    evaluations = [entry for entry in history if entry.val]
    for name in ("R1", "mAP"):
        _line(scores, name, [(entry.position, entry.val.get(name)) for entry in evaluations], marker="o")
    for axes, label in ((losses, "loss (mean of the epoch so far)"), (rates, "learning rate"), (scores, "percent")):
        _label(axes, "epoch", label)
        if axes.lines:
            _legend_above(axes)
            axes.set_xlim(left=0)
    return figure


def _line(
    axes: Axes, name: str, points: Sequence[tuple[float, float | None]], marker: str = "", steps: bool = False
) -> None:
    known = [(x, y) for x, y in points if y is not None]
    axes.plot(
        [x for x, _ in known],
        [y for _, y in known],
        label=name,
        color=_COLOURS[len(axes.lines) % len(_COLOURS)],
        marker=marker or ("." if len(known) < 30 else ""),
        markersize=4,
        drawstyle="steps-pre" if steps else "default",
    )


def _empty(columns: int = 1, height: float = SIZE[1]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(SIZE[0] * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=_FONT - 1)
        each.grid(alpha=0.25)
        each.set_axisbelow(True)
    return figure, axes


def _legend_above(axes: Axes) -> None:
    """Where it hides nothing."""
    names = len(axes.get_legend_handles_labels()[1])
    axes.legend(frameon=False, ncols=min(names, 4), loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.2)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=_FONT)
    axes.set_ylabel(y, fontsize=_FONT)
    for text in axes.texts:
        text.set_fontsize(_FONT - 1)
    if axes.get_legend():
        for text in axes.get_legend().get_texts():
            text.set_fontsize(_FONT - 1)
