"""The tables of a data set as plain cells, before formatting."""

from typing import NamedTuple

from twotower.report.answer import needed_text
from twotower.report.comparison import Comparison
from twotower.report.parts import Pair, shown
from twotower.report.quoted import Quoted
from twotower.report.section import Section
from twotower.report.text import (
    MINUS,
    difference_text,
    evidence_text,
    metric_name,
    number,
    with_spread,
)
from twotower.report.variants import Variant
from twotower.run.settings import Value

LAMBDAS = {"λ1": "loss.lambda1", "λ2": "loss.lambda2", "λ3": "loss.lambda3"}


class Line(NamedTuple):
    """A row of the table.

    Attributes:
        cells: as many as the heading has; some have two lines.
        is_clear: whether the difference is more than chance, over users and over seeds.
        is_reference: whether it is no variant: popularity, the oracle, or a published row.
    """

    cells: list[str]
    is_clear: bool = False
    is_reference: bool = False


class Grid(NamedTuple):
    """A table.

    Attributes:
        heading: of the columns.
        lines: the rows.
        difference: the column to emphasise; None if nothing is compared.
        details: the first of the columns that matter less, which a narrow output may put aside.
    """

    heading: list[str]
    lines: list[Line]
    difference: int | None
    details: int


def make_grid(section: Section) -> Grid:
    """The variants of a data set, then the rows to compare them with."""
    metric, *others = section.options.metrics
    heading = ["variant", _heading(metric)]
    difference = len(heading) if section.comparisons else None
    if section.comparisons:
        heading += [f"Δ {metric_name(metric)}", "over users", "over seeds"]
    details = len(heading)
    has_budget = any(variant.budget is not None for variant in section.variants)
    heading += [*["budget"] * has_budget, "seeds", *map(_heading, others)]
    compared = ["baseline", "", ""] if section.comparisons else []
    lines = [Line(_own(section.baseline, compared, section, has_budget))]
    for comparison in section.comparisons:
        cells = _own(comparison.variant, _compared(comparison, section), section, has_budget)
        lines.append(Line(cells, comparison.is_clear(section.options.level)))
    empty = [""] * (len(compared) + has_budget)
    for name, values in section.references.items():
        lines.append(_reference(name, values, empty, section))
    lines += [_published(row, empty, section) for row in section.quoted]
    return Grid(heading, [line for line in lines if any(line.cells[1:])], difference, details)


def parts_grid(section: Section) -> Grid | None:
    """The pairs that differ in one part; None if there are none."""
    if not section.parts:
        return None
    metric = section.options.metric
    variants = [variant for pair, _ in section.parts for variant in (pair.start, pair.end)]
    lambdas = {
        name: key
        for name, key in LAMBDAS.items()
        if any(key in variant.settings for variant in variants)
    }
    heading = ["part", f"Δ {metric_name(metric)}", "over users", "over seeds"]
    difference, details = 1, len(heading)
    heading += [*lambdas, "seeds needed", "seeds", _heading(metric)]
    lines = []
    for pair, comparison in section.parts:
        num_tests = sum(other.part == pair.part for other, _ in section.parts)
        cells = [
            f"{pair.part}: {pair.change}\n{pair.end.label} {MINUS} {pair.start.label}",
            *_compared(comparison, section),
            *(_change(pair, key) for key in lambdas.values()),
            needed_text(comparison, section.options, num_tests),
            _num_seeds(comparison),
            " → ".join(number(own.mean(metric)) for own in (comparison.other, comparison.one)),
        ]
        lines.append(Line(cells, comparison.is_clear(section.options.level)))
    return Grid(heading, lines, difference, details)


def _heading(metric: str) -> str:
    return f"{metric_name(metric)} ↑"  # of all metrics higher is better


def _change(pair: Pair, key: str) -> str:
    """``0.5``, or ``0 → 1`` of the part that differs; empty without this weight."""
    values: list[Value] = [variant.settings.get(key) for variant in (pair.start, pair.end)]
    known = dict.fromkeys(shown(value) for value in values if value is not None)
    return " → ".join(known)


def _num_seeds(comparison: Comparison) -> str:
    one, other = len(comparison.one.seeds), len(comparison.other.seeds)
    return str(one) if one == other else f"{one} against {other}"


def _own(variant: Variant, compared: list[str], section: Section, has_budget: bool) -> list[str]:
    metric, *others = (with_spread(variant, metric) for metric in section.options.metrics)
    budget = ["" if variant.budget is None else str(variant.budget)] * has_budget
    return [variant.label, metric, *compared, *budget, str(len(variant.runs)), *others]


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


def _reference(name: str, values: dict[str, float], empty: list[str], section: Section) -> Line:
    """A row with metrics alone; ``empty`` are the cells of the comparison."""
    metrics = section.options.metrics
    metric, *others = (number(values[own]) if own in values else "" for own in metrics)
    return Line([name, metric, *empty, "", *others], is_reference=True)


def _published(row: Quoted, empty: list[str], section: Section) -> Line:
    return _reference(f"{row.model} (quoted: {row.source})", row.metrics, empty, section)
