"""Plot of a search: the expected best by number of trials."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from twotower.plotting import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    NARROW,
    ORANGE,
    PURPLE,
    frame,
    legend_below,
    new_figure,
    set_heading,
    short,
)
from twotower.report.budget import Curve
from twotower.report.searches import Search

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, BLACK, GREY)


def draw_curves(search: Search, curves: list[Curve]) -> Figure:
    """A line with its band for each variant, and dotted the best so far in the search's order."""
    figure = new_figure(NARROW, 4.2 + 0.1 * len(curves))
    axis = figure.subplots()
    for place, curve in enumerate(curves):
        colour, budgets = COLOURS[place % len(COLOURS)], range(1, len(curve.best) + 1)
        style = "-" if place < len(COLOURS) else "--"
        ends = (curve.best - curve.spread, curve.best + curve.spread)
        axis.fill_between(budgets, *ends, color=colour, alpha=0.15, linewidth=0)
        axis.plot(budgets, curve.so_far, color=colour, linewidth=1, linestyle=":")
        label = short(curve.variant)
        axis.plot(budgets, curve.best, color=colour, linestyle=style, linewidth=2, label=label)
    axis.plot([], [], color=GREY, linewidth=1, linestyle=":", label="best so far in its order")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.set_xlabel("trials")
    axis.set_ylabel(f"expected best {short(search.about.metric)}", fontsize=9)
    frame(axis, f"Search {short(search.name)}")
    set_heading(figure, "band: ± standard deviation between searches of so many trials")
    legend_below(figure)
    return figure
