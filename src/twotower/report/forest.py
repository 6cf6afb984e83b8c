"""Forest plot: each variant's difference to the baseline with its intervals."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from twotower.plotting import BLACK, BLUE, GREY, ORANGE, frame, new_figure, short
from twotower.report.section import Row, Section, Wanted
from twotower.report.statistics import Evidence
from twotower.report.text import metric_name, relative, signed

SHIFT = 0.16  # of the two intervals of a row, up and down


def forest(section: Section, wanted: Wanted) -> Figure | None:
    """One row for each variant, the best on top; None where there is nothing to compare or no interval."""
    rows = [
        row
        for row in section.rows
        if row.difference and (row.difference.users or row.difference.seeds)
    ]
    if not rows:
        return None
    figure = new_figure(9, 1.6 + 0.5 * len(rows))
    axis = figure.subplots()
    axis.axvline(0, color=BLACK, linewidth=1)
    for place, row in enumerate(rows):
        assert row.difference is not None
        _interval(
            axis, place - SHIFT, row.difference.value, row.difference.users, BLUE, "o", wanted.level
        )
        _interval(
            axis,
            place + SHIFT,
            row.difference.value,
            row.difference.seeds,
            ORANGE,
            "D",
            wanted.level,
        )
        _value(axis, place, row)
    axis.set_yticks(range(len(rows)), [short(row.variant.label) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    frame(
        axis, f"{section.name}: Δ {metric_name(wanted.metric)} to {short(section.baseline.label)}"
    )
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(f"{wanted.level:.0%} intervals".replace("%", " %"))
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _interval(
    axis: Axes,
    place: float,
    value: float,
    found: Evidence | None,
    colour: str,
    marker: str,
    level: float,
) -> None:
    """A bar and its centre: full where the corrected test says so, else hollow."""
    if found is None:
        return
    axis.plot(
        [found.low, found.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round"
    )
    filled = colour if found.adjusted < 1 - level else "white"
    axis.plot(
        value,
        place,
        marker,
        color=colour,
        markerfacecolor=filled,
        markersize=7,
        markeredgewidth=1.6,
    )


def _value(axis: Axes, place: float, row: Row) -> None:
    """The number itself, at the right edge."""
    assert row.difference is not None
    start = row.difference.start
    text = signed(row.difference.value) + (
        f"  ({relative(row.difference.value, start)})" if start else ""
    )
    if row.difference.compared.note:
        text += f"\n{row.difference.compared.note}"
    axis.text(
        1.01,
        place,
        text,
        transform=axis.get_yaxis_transform(),
        va="center",
        fontsize=9,
        color=BLACK,
    )


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=BLUE, marker="o", linewidth=2.2, label="over users: these models"),
        Line2D([], [], color=ORANGE, marker="D", linewidth=2.2, label="over seeds: these users"),
        Line2D(
            [],
            [],
            color=GREY,
            marker="o",
            markerfacecolor="white",
            linewidth=0,
            label="hollow: could be chance (Holm)",
        ),
    ]
