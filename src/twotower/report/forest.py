"""Forest plot: each variant's difference to the baseline with its intervals."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from twotower.plotting import BAR, BLACK, BLUE, GREY, ORANGE, frame, new_figure, short
from twotower.report.comparison import Comparison
from twotower.report.section import Section
from twotower.report.text import difference_text, percent, versus

SHIFT = 0.16  # of the two intervals of a row, up and down


def forest(section: Section) -> Figure | None:
    """A row for each variant, the best on top; None if no comparison has an interval."""
    rows = [row for row in section.comparisons if row.users or row.seeds]
    if not rows:
        return None
    figure = new_figure(9, 1.6 + 0.5 * len(rows))
    axis = figure.subplots()
    axis.axvline(0, color=BLACK, linewidth=1)
    for place, row in enumerate(rows):
        _draw(axis, place, row, section)
    axis.set_yticks(range(len(rows)), [short(row.variant.label) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(f"{percent(section.options.level)} intervals")
    frame(axis, versus(section), grid="x")
    handles = [
        Line2D([], [], color=BLUE, marker="o", label="over users: these models"),
        Line2D([], [], color=ORANGE, marker="D", label="over seeds: these users"),
        Line2D([], [], color=GREY, marker="o", mfc="white", lw=0, label="hollow: could be chance"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw(axis: Axes, place: float, row: Comparison, section: Section) -> None:
    """Intervals, centres (filled where the corrected test finds a difference), the number."""
    options = section.options
    kinds = ((row.users, BLUE, "o", place - SHIFT), (row.seeds, ORANGE, "D", place + SHIFT))
    for evidence, colour, marker, height in kinds:
        if evidence is None:
            continue
        axis.hlines(height, evidence.low, evidence.high, color=colour, **BAR)
        fill = colour if evidence.adjusted < 1 - options.level else "white"
        axis.plot(row.value, height, marker, color=colour, mfc=fill, ms=7, mew=1.6)
    text = f"{difference_text(row.value, row.other.mean(options.metric))}\n{row.note}".strip()
    beside = axis.get_yaxis_transform()
    axis.text(1.01, place, text, transform=beside, va="center", fontsize=9, color=BLACK)
