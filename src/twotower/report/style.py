"""What all plots of a report share: colours, frames, lines with bands."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, GREY, BLACK = "#56B4E9", "#D55E00", "#999999", "#333333"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
BAR: dict[str, Any] = {"linewidth": 2.2, "capstyle": "round"}  # an interval


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def frame(axis: Axes, title: str, grid: str = "both") -> None:
    """Add a title, a light grid along ``grid``, and remove the box."""
    axis.set_title(title, loc="left", fontweight="bold", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="#EEEEEE", linewidth=1)  # type: ignore[arg-type]
    axis.set_axisbelow(True)


def band(
    axis: Axes, places: Sequence[float], values: list[list[float]], colour: str, label: str = ""
) -> None:
    """Draw the mean of the values at each place over a band of ± one standard deviation."""
    mean = np.array([np.mean(own) for own in values])
    spread = np.array([np.std(own, ddof=1) if len(own) > 1 else 0 for own in values])
    axis.fill_between(places, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
    axis.plot(places, mean, color=colour, linewidth=2, marker="o", markersize=5, label=label)
