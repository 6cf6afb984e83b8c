"""Forest plot of a difference across data sets."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from twotower.plotting import (
    BAR,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    NARROW,
    frame,
    legend_below,
    new_figure,
    short,
)
from twotower.report.across import ALL, Contrast, margin_text, verdict
from twotower.report.comparison import Options
from twotower.report.contrasts import Row
from twotower.report.summary import Summary, interval, two_sided
from twotower.report.text import metric_name, percent

MAX_ROWS = 24
NAME, BASE, BAR_AT = -0.3, -0.06, 0.24  # what a row holds, as a share of its height
Ends = tuple[float, float]


def draw_forest(contrast: Contrast, options: Options) -> Figure:
    """A row for each data set and base, then diamonds for the means; in %."""
    rows = [row for row in contrast.rows if row.estimate][:MAX_ROWS]
    means = list(contrast.means.items()) if len(contrast.rows) > 1 else []
    figure = new_figure(NARROW, 1.9 + 0.6 * (len(rows) + len(means)))
    axis = figure.subplots()
    limits = _limits(rows, means, options)
    margin = 100 * options.margin
    axis.axvspan(-margin, margin, color=GREEN, alpha=0.12, linewidth=0)
    for place, row in enumerate(rows):
        assert row.estimate
        own = row.estimate
        ends = interval(own.value, own.error, own.freedom, options.level)
        said = verdict(own, two_sided(own.value, own.error, own.freedom), options)
        colour = BLUE if said != "not decided" else GREY
        _bar(axis, place + BAR_AT, ends, limits, colour)
        axis.plot(100 * own.value, place + BAR_AT, "s", color=colour, markersize=6)
        _texts(axis, place, row.data, row.one.label, own.value, said)
    for place, (base, mean) in enumerate(means, len(rows)):
        _mean(axis, place, base, mean, limits, contrast, options)
    num = len(rows) + len(means)
    for place in range(num):
        axis.vlines(0, place + 0.05, place + 0.5, color=BLACK, linewidth=1)
        heavy = bool(means) and place == len(rows) - 1
        axis.axhline(place + 0.5, color=BLACK if heavy else GREY, linewidth=1.4 if heavy else 0.6)
    axis.set_xlim(*limits)
    axis.set_ylim(num - 0.5, -0.5)
    axis.set_yticks([])
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axis.set_xlabel(
        f"Δ test {metric_name(options.metric)} in %, {percent(options.level)} intervals; right is "
        "better",
        fontsize=9,
    )
    frame(axis, contrast.name, grid="x")
    axis.spines["left"].set_visible(False)
    handles: list[Any] = [
        Line2D([], [], color=BLUE, marker="s", label="decided"),
        Line2D([], [], color=GREY, marker="s", label="not decided"),
        Patch(color=GREEN, alpha=0.12, label=f"within {margin_text(options)}"),
    ]
    if means:
        handles.append(Line2D([], [], color=BLACK, marker="d", lw=0, label="mean"))
    if any(mean.predicted for _, mean in means):
        handles.append(Line2D([], [], color=BLACK, ls=":", label="another data set"))
    legend_below(figure, handles)
    return figure


def _limits(rows: list[Row], means: list[tuple[str, Summary]], options: Options) -> Ends:
    """Of the axis in %: the rows' intervals, and what fits of the means'."""
    level, own = options.level, [row.estimate for row in rows if row.estimate]
    ends = [end for one in own for end in interval(one.value, one.error, one.freedom, level)]
    values = [one.value for one in own]
    wide = 3 * max(max(map(abs, values)), options.margin, *(one.error for one in own))
    ends = [min(max(end, -wide), wide) for end in ends]
    ends += [min(max(end, -wide), wide) for _, mean in means for end in (mean.low, mean.high)]
    low, high = min([*ends, *values, -options.margin]), max([*ends, *values, options.margin])
    room = 0.06 * (high - low)
    return 100 * (low - room), 100 * (high + room)


def _bar(axis: Axes, place: float, ends: Ends, limits: Ends, colour: str, **look: Any) -> None:
    """An interval in %, with an arrow where it goes on beyond the axis."""
    low, high = (100 * end for end in ends)
    left, right = limits
    axis.hlines(place, max(low, left), min(high, right), color=colour, **{**BAR, **look})
    for is_cut, at, marker in ((low < left, left, "<"), (high > right, right, ">")):
        if is_cut:
            axis.plot(at, place, marker, color=colour, markersize=6, clip_on=False)


def _mean(
    axis: Axes,
    place: int,
    base: str,
    mean: Summary,
    limits: Ends,
    contrast: Contrast,
    options: Options,
) -> None:
    at, (left, right) = place + BAR_AT, limits
    if mean.predicted:
        thin: dict[str, Any] = {"linewidth": 1.2, "linestyle": ":"}
        _bar(axis, at, mean.predicted, limits, BLACK, **thin)
    low, value, high = (
        min(max(100 * own, left), right) for own in (mean.low, mean.value, mean.high)
    )
    axis.fill([low, value, high, value], [at, at - 0.14, at, at + 0.14], color=BLACK, linewidth=0)
    said = verdict(mean, (contrast.p or 0) if base == ALL else mean.p, options)
    number = f"mean of {mean.num_data} data sets" if mean.num_data > 1 else "mean"
    _texts(axis, place, number, base, mean.value, said)


def _texts(axis: Axes, place: int, name: str, below: str, value: float, said: str) -> None:
    inside: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center"}
    axis.text(0, place + NAME, short(name, 30), fontsize=9, **inside)
    axis.text(1, place + NAME, percent(value, "+.1%"), ha="right", fontsize=9, **inside)
    axis.text(0, place + BASE, short(below, 34), fontsize=8, color=GREY, **inside)
    axis.text(1, place + BASE, said, ha="right", fontsize=8, color=GREY, **inside)
