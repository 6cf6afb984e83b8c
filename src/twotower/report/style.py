"""What all plots of a report share: colours that colour-blind eyes tell apart, frames, names."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#333333",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)


def new_figure(width: float, height: float) -> Figure:
    """A figure that arranges itself; inches."""
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def frame(axis: Axes, title: str) -> None:
    """Title on the left, no box, a light grid behind."""
    axis.set_title(title, loc="left", fontweight="bold", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#EEEEEE", linewidth=1)
    axis.set_axisbelow(True)
