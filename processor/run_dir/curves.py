"""Diagrams with matplotlib, small enough to be read on a phone and in a column of a paper.

Slow to import; whoever may do without a figure imports this where it is drawn.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from processor.run_dir.history import Entry
from utils.files import replacing

SIZE = (4.2, 2.9)
"""width and height in inches of one diagram"""

DPI = 220

COLOURS = ("#3566a8", "#c8553d", "#2f8f5b", "#8a5fa8", "#b8860b", "#4a9aa8", "#777777")

FONT_SIZE = 9


def save_png(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a file that may be there already; whoever looks at it never sees half of it."""
    figure.set_dpi(dpi)
    with replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)  # savefig would draw everything once more, to lay it out


def draw_curves(history: Sequence[Entry]) -> Figure:
    """Losses, learning rates, and R1 and mAP over the epochs of a run."""
    figure, (losses, rates, scores) = new_figure(3)
    train = [entry for entry in history if entry.train]
    names = dict.fromkeys(name for entry in train for name in entry.train if name.endswith("loss"))
    if len(names) == 2:  # the only loss is the total
        del names[next(name for name in names if name != "loss")]
    for name in names:
        _line(losses, name.removesuffix("_loss"), [(entry.position, entry.train.get(name)) for entry in train])
    for name in dict.fromkeys(name for entry in train for name in entry.lr):
        _line(rates, f"base {name}", [(entry.position, entry.lr.get(name)) for entry in train], steps=True)
    evaluations = [entry for entry in history if entry.val]
    singly = {name: None for entry in evaluations for name in entry.val if name.endswith(" R1")}  # of several data sets
    for name in ("R1", "mAP", *singly):
        _line(scores, name, [(entry.position, entry.val.get(name)) for entry in evaluations], marker="o")
    for axes, label in ((losses, "loss (mean of the epoch so far)"), (rates, "learning rate"), (scores, "percent")):
        label_axes(axes, "epoch", label)
        if axes.lines:
            add_legend(axes)
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
        color=COLOURS[len(axes.lines) % len(COLOURS)],
        marker=marker or ("." if len(known) < 30 else ""),
        markersize=4,
        drawstyle="steps-pre" if steps else "default",
    )


def new_figure(columns: int = 1, height: float = SIZE[1]) -> tuple[Figure, Sequence[Axes]]:
    """A figure with some axes beside each other, ``height`` inches high."""
    figure = Figure(figsize=(SIZE[0] * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=FONT_SIZE - 1)
        each.grid(alpha=0.25)
        each.set_axisbelow(True)
    return figure, axes


def add_legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    names = len(axes.get_legend_handles_labels()[1])
    axes.legend(frameon=False, ncols=min(names, 4), loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.2)


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Name both axes, and bring all text of the diagram to its size; to be called last."""
    axes.set_xlabel(x, fontsize=FONT_SIZE)
    axes.set_ylabel(y, fontsize=FONT_SIZE)
    for text in axes.texts:
        text.set_fontsize(FONT_SIZE - 1)
    if axes.get_legend():
        for text in axes.get_legend().get_texts():
            text.set_fontsize(FONT_SIZE - 1)
