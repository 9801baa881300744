"""The diagrams of a report."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from processor.run_dir.curves import COLOURS, FONT_SIZE, add_legend, label_axes, new_figure


def draw_cmc(share_K: Sequence[float]) -> Figure:
    """R@k over k; ``share_K``: percent of queries with a match among the first 1, 2, ..."""
    figure, (axes,) = new_figure()
    axes.plot(range(1, len(share_K) + 1), share_K, color=COLOURS[0])
    axes.set_xscale("log")
    marks = [k for k in (1, 5, 10, 50, 100) if k <= len(share_K)]
    axes.set_xticks(marks, [str(k) for k in marks])
    axes.minorticks_off()
    for k in marks[:3]:
        axes.annotate(f"R{k} {share_K[k - 1]:.1f}", (k, share_K[k - 1]), (7, -9), textcoords="offset points")
        axes.plot(k, share_K[k - 1], "o", color=COLOURS[0], markersize=4)
    label_axes(axes, "k", "queries with a match\namong the first k (%)")
    room = 0.12 * (100 - share_K[0]) + 1  # the first label stands below its point
    axes.set_ylim(share_K[0] - room, 100 + room / 3)
    return figure


def draw_histograms(match_N: Sequence[int], other_N: Sequence[int]) -> Figure:
    """Densities of the similarities of matching and other pairs, each with area 1; equal bins over [-1, 1]."""
    figure, (axes,) = new_figure()
    width = 2 / len(match_N)
    edges = [-1 + width * number for number in range(len(match_N) + 1)]
    used = [n for n, counts in enumerate(zip(match_N, other_N, strict=True)) if any(counts)]
    for counts, colour, name in ((other_N, COLOURS[1], "not matching"), (match_N, COLOURS[2], "matching")):
        total = max(sum(counts), 1)
        axes.stairs([count / total / width for count in counts], edges, fill=True, alpha=0.55, color=colour, label=name)
    axes.set_xlim(edges[max(min(used) - 1, 0)], edges[min(max(used) + 2, len(edges) - 1)])
    add_legend(axes)
    label_axes(axes, "cosine similarity", "density")
    return figure


def draw_bars(shares: Mapping[str, float], counts: Mapping[str, int], x: str, y: str) -> Figure:
    """One bar per name, with how many it stands for written on it."""
    figure, (axes,) = new_figure()
    bars = axes.bar(list(shares), list(shares.values()), color=COLOURS[0], width=0.8)
    axes.bar_label(bars, [f"n={counts[name]:,}" for name in shares], fontsize=FONT_SIZE - 2, padding=2)
    axes.margins(y=0.15)
    label_axes(axes, x, y)
    return figure


def draw_stacked(rows: Mapping[str, Sequence[float]], parts: Sequence[str]) -> Figure:
    """One horizontal bar of 100 % per name, divided among the parts."""
    figure, (axes,) = new_figure(height=0.9 + 0.26 * len(rows))
    for number, part in enumerate(parts):
        widths = [100 * values[number] / (sum(values) or 1) for values in rows.values()]
        left = [100 * sum(values[:number]) / (sum(values) or 1) for values in rows.values()]
        axes.barh(list(rows), widths, left=left, label=part, color=COLOURS[number % len(COLOURS)])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    add_legend(axes)
    label_axes(axes, "share (%)", "")
    return figure


def draw_pairs(
    shares: Mapping[str, tuple[float | None, float | None]], names: tuple[str, str], x: str, chance: float | None = None
) -> Figure:
    """Two dots per row on a line between them, of which one may be missing; ``chance`` is marked."""
    figure, (axes,) = new_figure(height=0.9 + 0.26 * max(len(shares), 1))
    for row, pair in enumerate(shares.values()):
        known = [value for value in pair if value is not None]
        axes.plot(known, [row] * len(known), color="#bbbbbb", zorder=1)
    for number, name in enumerate(names):
        points = [(pair[number], row) for row, pair in enumerate(shares.values()) if pair[number] is not None]
        colour = COLOURS[number]
        axes.scatter([value for value, _ in points], [row for _, row in points], color=colour, label=name, zorder=2)
    axes.set_yticks(range(len(shares)), list(shares))
    axes.invert_yaxis()
    if chance is not None:
        axes.axvline(chance, color="#777777", linestyle=":", zorder=0)
    add_legend(axes)
    label_axes(axes, x, "")
    return figure


def draw_intervals(values: Mapping[str, tuple[float, float, float]], x: str, chance: float | None = None) -> Figure:
    """A dot per name with its interval; values: (value, lower bound, upper bound). ``chance`` is marked."""
    figure, (axes,) = new_figure(height=0.7 + 0.3 * len(values))
    for row, (value, low, high) in enumerate(values.values()):
        axes.plot([low, high], [row, row], color=COLOURS[0], linewidth=2)
        axes.plot(value, row, "o", color=COLOURS[0], markersize=5)
        axes.annotate(f"{value:.1f}", (value, row), (0, 5), textcoords="offset points", ha="center")
    if chance is not None:
        axes.axvline(chance, color="#777777", linestyle=":", zorder=0)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.7)
    label_axes(axes, x, "")
    return figure
