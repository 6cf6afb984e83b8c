"""Colours, frames, labels and files of all plots."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogFormatter, LogFormatterMathtext

from twotower.wording import clip

# The palette of Okabe and Ito, which colour-blind readers can tell apart
BLUE, ORANGE, GREEN, PURPLE, GREY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#999999", "#333333",
)  # fmt: skip
BAR: dict[str, Any] = {"linewidth": 2.2, "capstyle": "round"}  # an interval
NARROW = 4.6  # inches; a phone of 390 pixels shows this width with letters of 9 pt 10 pixels high
LABELS = 0.8  # inches left of the first plot of a row, for its labels
PLAIN_TEXT: dict[Any, Any] = {"text.parse_math": False, "text.usetex": False}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, with a constrained layout."""
    return Figure(figsize=(width, height), dpi=160, layout="constrained")


def frame(axis: Axes, title: str, grid: str = "both", size: float = 11) -> None:
    """Set the title on the left, remove the box, and draw a light grid along ``grid``."""
    set_title(axis, title, size)
    axis.grid(axis=grid, color="#EEEEEE", linewidth=1)  # type: ignore[arg-type]
    axis.set_axisbelow(True)


def set_title(axis: Axes, title: str, size: float = 11) -> None:
    """Set the title on the left, in lines that fit above the plot, and remove the box."""
    figure, place = axis.get_figure(root=True), axis.get_subplotspec()
    assert figure is not None and place is not None
    width = (figure.get_figwidth() - LABELS) / place.get_gridspec().ncols - 0.1
    lines = broken(title, width, size=size, weight="bold")
    axis.set_title(lines, loc="left", fontweight="bold", fontsize=size)
    axis.spines[["top", "right"]].set_visible(False)


def set_heading(figure: Figure, heading: str) -> None:
    """Write a heading over all plots, in lines that fit."""
    figure.suptitle(broken(heading, figure.get_figwidth() - 0.2, size=9), fontsize=9)


def broken(text: str, width: float, **font: Any) -> str:
    """A text in lines of at most ``width`` inches; matplotlib's own takes prices for formulas."""
    lines = []
    for line in text.split("\n"):
        points, _, _ = text_to_path.get_text_width_height_descent(
            line, FontProperties(**font), False
        )
        num = len(line) if points <= 72 * width else int(0.9 * len(line) * 72 * width / points)
        lines += textwrap.wrap(line, max(1, num)) or [""]
    return "\n".join(lines)


def legend_below(figure: Figure, handles: Sequence[Artist] = ()) -> None:
    """Explain the marks below all plots, where nothing is hidden, in as many columns as fit.

    Args:
        figure: with all its plots.
        handles: labelled marks; by default those of the plots, each label once.
    """
    if not handles:
        labelled: dict[str, Artist] = {}
        for axis in figure.axes:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                labelled.setdefault(label, handle)
        handles = list(labelled.values())
    look: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": 9}
    look["labelspacing"] = 0.7
    for num_columns in range(len(handles), 0, -1):
        legend = figure.legend(handles=handles, ncols=num_columns, **look)
        _write_plainly(figure)  # for its width
        if legend.get_window_extent().width <= figure.bbox.width:
            return
        if num_columns > 1:
            legend.remove()


def band(
    axis: Axes, places: Sequence[float], values: list[list[float]], colour: str, label: str = ""
) -> None:
    """Draw the mean of the values at each place over a band of ± one standard deviation."""
    mean = np.array([np.mean(own) for own in values])
    spread = np.array([np.std(own, ddof=1) if len(own) > 1 else 0 for own in values])
    axis.fill_between(places, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
    axis.plot(places, mean, color=colour, linewidth=2, marker="o", markersize=5, label=label)


def short(name: str, length: int = 34) -> str:
    """A name from data as a label of at most ``length`` characters."""
    name = clip(name, length)
    # matplotlib leaves labels that begin with _ out of the legend
    return f" {name}" if name.startswith("_") else name


def save_figure(figure: Figure, target: Path | IO[bytes], **options: Any) -> None:
    """Write a figure as PNG, with all its texts as they are.

    Text between two dollar signs is not a formula: it may be a price band such as ``$5_to_$10``.
    Characters that the font lacks are drawn as boxes, without a warning for each.

    Args:
        figure: is changed to show plain text.
        target: a path, where a link or file is replaced, or an open file.
        options: of matplotlib's ``savefig``.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # the powers of a logarithmic axis are formulas too
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter(LogFormatter())
            if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(LogFormatter())
    _write_plainly(figure)
    if isinstance(target, Path):
        target.unlink(missing_ok=True)  # a link would be followed
    with rc_context(PLAIN_TEXT), warnings.catch_warnings():  # some texts are made while drawing
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure.savefig(target, format="png", **options)


def _write_plainly(figure: Figure) -> None:
    """Take no text of a figure for a formula."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_usetex(False)
