"""The table of a data set as text, before any format."""

from typing import NamedTuple

from twotower.report.quoted import Quoted
from twotower.report.section import Difference, Row, Section, Wanted
from twotower.report.text import (
    interval,
    metric_name,
    number,
    p_value,
    relative,
    signed,
    with_spread,
)

NOTHING = ""


class Line(NamedTuple):
    """A row of the table.

    Attributes:
        cells: as many as the heading has.
        is_clear: is the difference more than chance, over users and over seeds?
        is_quoted: did somebody else publish it?
    """

    cells: tuple[str, ...]
    is_clear: bool = False
    is_quoted: bool = False


class Grid(NamedTuple):
    """Heading and rows; column ``difference`` is what a clear row emphasises, None where nothing is compared."""

    heading: tuple[str, ...]
    lines: tuple[Line, ...]
    difference: int | None


def make_grid(section: Section, quoted: list[Quoted], wanted: Wanted) -> Grid:
    """The variants of a data set, then what is quoted."""
    names = (wanted.metric, *wanted.columns)
    heading = ["variant", "seeds", *map(metric_name, names)]
    is_compared = len(section.rows) > 1
    difference = len(heading) if is_compared else None
    if is_compared:
        heading += [f"Δ {metric_name(wanted.metric)}", "over users", "over seeds"]
    lines = [_own(row, section, names, wanted) for row in section.rows]
    lines += [_others(row, names) for row in quoted if row.metrics.keys() & set(names)]
    return Grid(tuple(heading), tuple(_filled(line, len(heading)) for line in lines), difference)


def _own(row: Row, section: Section, names: tuple[str, ...], wanted: Wanted) -> Line:
    cells = [
        row.variant.label,
        str(len(row.variant.seeds)),
        *(with_spread(row.values[name]) for name in names),
    ]
    if row.difference is None:
        return Line((*cells, "baseline") if len(section.rows) > 1 else tuple(cells))
    return Line((*cells, *_compared(row.difference, wanted)), row.difference.is_clear(wanted.level))


def _compared(difference: Difference, wanted: Wanted) -> list[str]:
    share = f" ({relative(difference.value, difference.start)})" if difference.start else ""
    note = f"; {difference.compared.note}" if difference.compared.note else ""
    cells = [f"{signed(difference.value)}{share}{note}"]
    for evidence, least in (
        (difference.users, 1 / (1 + wanted.resamples)),
        (difference.seeds, 0.0),
    ):
        cells.append(
            f"{interval(evidence)}, {p_value(evidence.adjusted, least)}" if evidence else NOTHING
        )
    return cells


def _others(row: Quoted, names: tuple[str, ...]) -> Line:
    values = (number(row.metrics[name]) if name in row.metrics else NOTHING for name in names)
    return Line((f"{row.model} (quoted: {row.source})", NOTHING, *values), is_quoted=True)


def _filled(line: Line, width: int) -> Line:
    return line._replace(cells=line.cells + (NOTHING,) * (width - len(line.cells)))
