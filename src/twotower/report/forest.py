"""Forest plot: each variant's difference to the baseline with its intervals."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from twotower.plotting import (
    BAR,
    BLACK,
    BLUE,
    GREY,
    NARROW,
    ORANGE,
    frame,
    legend_below,
    new_figure,
    short,
)
from twotower.report.comparison import Comparison
from twotower.report.section import Section
from twotower.report.text import difference_text, metric_name, percent, versus

# what a row holds, from top to bottom, as a share of its height
NAME, NOTE, OVER_USERS, OVER_SEEDS = -0.35, -0.12, 0.1, 0.34


def forest(section: Section) -> Figure | None:
    """A row for each variant, the best on top; None if no comparison has an interval."""
    rows = [row for row in section.comparisons if row.users or row.seeds]
    if not rows:
        return None
    figure = new_figure(NARROW, 1.3 + 0.65 * len(rows))
    axis = figure.subplots()
    for place, row in enumerate(rows):
        _draw(axis, place, row, section)
    axis.set_yticks([])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    metric = metric_name(section.options.metric)
    level = percent(section.options.level)
    axis.set_xlabel(f"Δ test {metric}, {level} intervals; right is better")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5))
    frame(axis, versus(section), grid="x")
    axis.spines["left"].set_visible(False)
    handles = [
        Line2D([], [], color=BLUE, marker="o", label="over users: these models"),
        Line2D([], [], color=GREY, marker="o", mfc="white", lw=0, label="hollow: could be chance"),
    ]
    if any(row.seeds for row in rows):
        label = "over seeds: these users"
        handles.insert(1, Line2D([], [], color=ORANGE, marker="D", label=label))
    legend_below(figure, handles)
    return figure


def _draw(axis: Axes, place: float, row: Comparison, section: Section) -> None:
    """Name, difference, intervals, centres (filled where the corrected test finds a difference).

    The line of zero leaves out the words.
    """
    options = section.options
    kinds = ((row.users, BLUE, "o", OVER_USERS), (row.seeds, ORANGE, "D", OVER_SEEDS))
    for evidence, colour, marker, shift in kinds:
        if evidence is None:
            continue
        axis.hlines(place + shift, evidence.low, evidence.high, color=colour, **BAR)
        fill = colour if evidence.adjusted < 1 - options.level else "white"
        axis.plot(row.value, place + shift, marker, color=colour, mfc=fill, ms=7, mew=1.6)
    axis.vlines(0, place, place + 0.5, color=BLACK, linewidth=1)
    axis.axhline(place + 0.5, color=GREY, linewidth=0.6)
    inside: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center"}
    difference = difference_text(row.value, row.other.mean(options.metric))
    name = place + (NAME if row.note else (NAME + NOTE) / 2)
    axis.text(0, name, short(row.variant.label), fontsize=9, **inside)
    axis.text(1, name, difference, ha="right", fontsize=9, **inside)
    axis.text(1, place + NOTE, row.note, ha="right", fontsize=8, color=GREY, **inside)
