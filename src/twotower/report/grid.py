"""The table of a data set as plain cells, before formatting."""

from typing import NamedTuple

from twotower.report.quoted import Quoted
from twotower.report.section import Comparison, Section
from twotower.report.text import difference_text, evidence_text, metric_name, number, with_spread
from twotower.report.variants import Variant


class Line(NamedTuple):
    """A row of the table.

    Attributes:
        cells: as many as the heading has; some have two lines.
        is_clear: whether the difference is more than chance, over users and over seeds.
        is_quoted: whether it is a published row.
    """

    cells: list[str]
    is_clear: bool = False
    is_quoted: bool = False


class Grid(NamedTuple):
    """Heading and rows; ``difference`` is the column to emphasise, None if nothing is compared."""

    heading: list[str]
    lines: list[Line]
    difference: int | None


def make_grid(section: Section) -> Grid:
    """The variants of a data set, then the published rows."""
    metrics = list(section.options.metrics)
    heading = ["variant", "seeds", *map(metric_name, metrics)]
    difference = len(heading) if section.comparisons else None
    if section.comparisons:
        heading += [f"Δ {metric_name(section.options.metric)}", "over users", "over seeds"]
    lines = [Line(_own(section.baseline, metrics) + ["baseline"])]
    for comparison in section.comparisons:
        cells = _own(comparison.variant, metrics) + _compared(comparison, section)
        lines.append(Line(cells, comparison.is_clear(section.options.level)))
    lines += [_published(row, metrics) for row in section.quoted if row.metrics.keys() & metrics]
    width = len(heading)
    lines = [line._replace(cells=(line.cells + [""] * width)[:width]) for line in lines]
    return Grid(heading, lines, difference)


def _own(variant: Variant, metrics: list[str]) -> list[str]:
    values = [with_spread(variant, metric) for metric in metrics]
    return [variant.label, str(len(variant.runs)), *values]


def _compared(comparison: Comparison, section: Section) -> list[str]:
    options = section.options
    start = comparison.other.mean(options.metric)
    value = difference_text(comparison.value, start)
    least = 1 / (1 + options.resamples)
    return [
        f"{value}\n{comparison.note}".strip(),
        evidence_text(comparison.users, least) if comparison.users else "",
        evidence_text(comparison.seeds) if comparison.seeds else "",
    ]


def _published(row: Quoted, metrics: list[str]) -> Line:
    values = [number(row.metrics[name]) if name in row.metrics else "" for name in metrics]
    return Line([f"{row.model} (quoted: {row.source})", "", *values], is_quoted=True)
