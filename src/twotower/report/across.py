"""The mean of a difference over data sets, and how it changes with the interactions per user."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np

from twotower.report.comparison import Options
from twotower.report.contrasts import Row, find_rows
from twotower.report.estimate import Estimate, variances
from twotower.report.section import Section
from twotower.report.statistics import Evidence, holm
from twotower.report.summary import Line, Summary, equivalence, regress, summarise
from twotower.run.settings import Value

ALL = "all data"
MIN_DOSES = 3  # of a slope


class Contrast(NamedTuple):
    """A difference wherever it was measured.

    Attributes:
        name: such as ``dat − dat_lambda0`` or ``λ3: 0 → 1``.
        rows: one for each data set and base.
        means: by base, if there are several with two or more data sets, and last of all data.
            Empty without an estimate.
        p: of the mean of all, after Holm's correction over the contrasts; None without one.
        line: by the decimal logarithm of the interactions per user; None with fewer than three data
            sets, or doses of one, that differ in it.
    """

    name: str
    rows: list[Row]
    means: dict[str, Summary]
    p: float | None
    line: Line | None


def find_contrasts(sections: list[Section], options: Options) -> list[Contrast]:
    """The differences of :func:`twotower.report.contrasts.find_rows` with their means."""
    found = [
        Contrast(name, rows, _means(rows, options), None, _line(rows, options))
        for name, rows in find_rows(sections, options).items()
    ]
    means = [own.means.get(ALL) for own in found]
    tests = holm([mean and Evidence(mean.low, mean.high, mean.p, mean.p) for mean in means])
    return [own._replace(p=test and test.adjusted) for own, test in zip(found, tests, strict=True)]


def verdict(own: Estimate | Summary, p: float, options: Options) -> str:
    """What is known of a relative difference, in words; equivalence comes first.

    Args:
        own: the difference.
        p: of the test that it is zero.
        options: level and margin.
    """
    alpha = 1 - options.level
    if equivalence(own.value, own.error, own.freedom, options.margin) < alpha:
        return f"equivalent within {margin_text(options)}"
    if p < alpha:
        return "better" if own.value > 0 else "worse"
    return "not decided"


def margin_text(options: Options) -> str:
    """``±1 %``."""
    return f"±{100 * options.margin:g} %"


def _means(rows: list[Row], options: Options) -> dict[str, Summary]:
    known = counted(rows)
    if not known:
        return {}
    by_base: dict[str, list[Row]] = {}
    for row in known:
        by_base.setdefault(row.base, []).append(row)
    several = {
        base: mean_of(own, options)
        for base, own in by_base.items()
        if len(by_base) > 1 and len({row.source for row in own}) > 1
    }
    return {**several, ALL: mean_of(known, options)}


def counted(rows: list[Row]) -> list[Row]:
    """The rows that count in a mean: with an error, and not thinned where the whole data are."""
    known = [row for row in rows if row.estimate]
    whole = {row.source for row in known if row.limit is None}
    return [row for row in known if row.limit is None or row.source not in whole]


def mean_of(rows: list[Row], options: Options) -> Summary:
    """Over sources of data: bases, splits and parts of one are no sample of data sets.

    Args:
        rows: with estimates.
        options: level of the interval.
    """
    estimates = [row.estimate for row in rows if row.estimate]
    values, squares, _ = _grouped(rows, lambda row: row.source)
    if len(values) == 1:  # weights with a pooled variance are not needed
        squares = np.array([np.mean([own.error for own in estimates]) ** 2])
    freedom = min(own.freedom for own in estimates)
    return summarise(values, squares, freedom, options.level)


def _line(rows: list[Row], options: Options) -> Line | None:
    """Within thinned data sets, or without any across data sets. Bases on one are one point.

    Doses of one data set share what is special of it. As points of their own beside other data
    they would be sure of slopes that are differences between a few data sets.
    """
    known = [row for row in rows if row.estimate and row.dose]
    limits: dict[tuple[str, ...], set[Value]] = {}
    for row in known:
        limits.setdefault(row.source, set()).add(row.limit)
    thinned = [source for source, own in limits.items() if len(own) > 1]
    within = [row for row in known if row.source in thinned]
    groups = {row.data: thinned.index(row.source) for row in within}
    if len(groups) > len(thinned) + 1:  # else no error is known
        values, squares, doses = _grouped(within, lambda row: row.data)
        return regress(np.log10(doses), values, squares, options.level, list(groups.values()))
    if len({row.source for row in known}) < MIN_DOSES:
        return None
    values, squares, doses = _grouped(known, lambda row: row.source)
    if len(set(doses)) < MIN_DOSES:
        return None
    return regress(np.log10(doses), values, squares, options.level)


def _grouped(
    rows: list[Row], key: Callable[[Row], Hashable]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of the rows with the same key: relative differences, variances and doses.

    Rows of one data set share users and seeds, so the error of their mean is taken as large as it
    can be: the mean of their errors.
    """
    estimates = [row.estimate for row in rows if row.estimate]
    errors = np.sqrt(variances(estimates))
    groups: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(key(row), []).append(place)
    values = np.array([own.value for own in estimates])
    doses = np.array([row.dose or np.nan for row in rows])
    columns = (values, errors, doses)
    value, error, dose = (
        np.array([column[own].mean() for own in groups.values()]) for column in columns
    )
    return value, error**2, dose
