"""Plot of a difference by the training interactions per user."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from twotower.plotting import (
    BAR,
    BLACK,
    BLUE,
    GREEN,
    NARROW,
    ORANGE,
    PURPLE,
    frame,
    legend_below,
    new_figure,
    set_heading,
    short,
)
from twotower.report.across import Contrast, margin_text
from twotower.report.comparison import Options
from twotower.report.contrasts import Row
from twotower.report.summary import interval
from twotower.report.text import metric_name, percent

COLOURS = (BLUE, ORANGE, PURPLE, GREEN)
TICKS = [digit * 10.0**power for power in range(5) for digit in (1, 2, 5)]


def draw_dose(contrast: Contrast, options: Options) -> Figure:
    """Points with intervals, a colour for each base, the margin, and the regression with its band.

    Needs a row with an estimate and a dose.
    """
    rows = [row for row in contrast.rows if row.estimate and row.dose]
    figure = new_figure(NARROW, 4.4)
    axis = figure.subplots()
    margin, band = 100 * options.margin, f"within {margin_text(options)}"
    axis.axhspan(-margin, margin, color=GREEN, alpha=0.12, linewidth=0, label=band)
    axis.axhline(0, color=BLACK, linewidth=1)
    axis.set_xscale("log")
    if contrast.line:
        along, (middle, *ends) = 10**contrast.line.places, 100 * contrast.line.band
        where = "within thinned data sets" if contrast.line.is_within else "across data sets"
        axis.plot(along, middle, color=BLACK, linewidth=1.5, label=f"regression {where}")
        axis.fill_between(along, *ends, color=BLACK, alpha=0.1, linewidth=0)
    bases = list(dict.fromkeys(row.base for row in rows))
    for number, base in enumerate(bases):
        shift = 1 + 0.05 * (number - (len(bases) - 1) / 2)  # side by side on one data set
        for row in rows:
            if row.base == base and row.estimate and row.dose:
                own = row.estimate
                low, high = interval(own.value, own.error, own.freedom, options.level)
                axis.vlines(row.dose * shift, 100 * low, 100 * high, color=_colour(number), **BAR)
                axis.plot(row.dose * shift, 100 * own.value, "o", color=_colour(number), ms=6)
        axis.plot([], [], "o-", color=_colour(number), label=short(base))
    axis.set_ylim(*_limits(rows, options))
    doses = [row.dose for row in rows if row.dose]
    axis.set_xlim(min(doses) / 1.15, max(doses) * 1.15)
    axis.xaxis.set_major_locator(FixedLocator(TICKS))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_xlabel("training interactions per user (logarithmic)", fontsize=9)
    axis.set_ylabel(f"Δ test {metric_name(options.metric)} in %", fontsize=9)
    frame(axis, contrast.name)
    set_heading(figure, f"{percent(options.level)} intervals for other seeds and users")
    legend_below(figure)
    return figure


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _limits(rows: list[Row], options: Options) -> tuple[float, float]:
    """Of the differences in %, without what a wide interval would take away from all others."""
    own = [row.estimate for row in rows if row.estimate]
    errors = [one.error for one in own]
    room = max(4 * float(np.median(errors)), 1.5 * options.margin)
    values = [one.value for one in own]
    return 100 * (min(values) - room), 100 * (max(values) + room)
