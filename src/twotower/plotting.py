"""Colours, frames, labels and files of all plots."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, LogFormatterMathtext

from twotower.wording import clip

# The palette of Okabe and Ito, which colour-blind readers can tell apart
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#333333",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
BAR: dict[str, Any] = {"linewidth": 2.2, "capstyle": "round"}  # an interval
PLAIN_TEXT: dict[Any, Any] = {"text.parse_math": False, "text.usetex": False}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, with a constrained layout."""
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def frame(axis: Axes, title: str, grid: str = "both") -> None:
    """Set the title on the left, remove the box, and draw a light grid along ``grid``."""
    set_title(axis, title)
    axis.grid(axis=grid, color="#EEEEEE", linewidth=1)  # type: ignore[arg-type]
    axis.set_axisbelow(True)


def set_title(axis: Axes, title: str) -> None:
    """Set the title on the left and remove the box."""
    axis.set_title(title, loc="left", fontweight="bold", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)


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
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_usetex(False)
    if isinstance(target, Path):
        target.unlink(missing_ok=True)  # a link would be followed
    with rc_context(PLAIN_TEXT), warnings.catch_warnings():  # some texts are made while drawing
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure.savefig(target, format="png", **options)
