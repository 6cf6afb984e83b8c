"""Random-effects summary and regression over data sets, and equivalence within a margin."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import brentq

LEAST = 1e-18  # a variance of zero would have an infinite weight


class Fit(NamedTuple):
    """Weighted least squares with random effects.

    Attributes:
        coefficients: ``(num_columns,)``.
        errors: their standard errors, ``(num_columns,)``.
        freedom: degrees of freedom of the t intervals.
        between: variance of the true values between data sets, τ².
    """

    coefficients: np.ndarray
    errors: np.ndarray
    freedom: int
    between: float


def random_effects(values: np.ndarray, variances: np.ndarray, design: np.ndarray) -> Fit:
    """Inverse-variance weights, τ² of Paule & Mandel (1982), errors of Hartung & Knapp (2001).

    Paule and Mandel's τ² assumes no distribution and is not too small with few data sets, as that
    of DerSimonian & Laird is (Veroniki et al., 2016). With t, the errors of Hartung & Knapp (and
    Sidik & Jonkman, 2002) keep the level for few data sets of equal precision; with three of
    unequal precision 7 % are too small where 5 % may be (IntHout et al., 2014). So here they are
    never below those of the fit with equal weights. With one degree of freedom, where two values
    may agree by chance, they are not below what chance within the data sets gives either (Röver et
    al., 2015); with more that would make the tests too cautious.

    Args:
        values: ``(num_data,)``.
        variances: of each value by chance, ``(num_data,)``.
        design: ``(num_data, num_columns)``, the first of ones; more rows than columns.
    """
    variances = np.maximum(variances, LEAST)
    between = _between(values, variances, design)
    coefficients, inverse, ratio = _weighted(values, 1 / (variances + between), design)
    _, plain_inverse, plain_ratio = _weighted(values, np.ones(len(values)), design)
    freedom = len(values) - design.shape[1]
    if freedom == 1:
        ratio = max(1.0, ratio)
    squared = np.maximum(np.diag(inverse) * ratio, np.diag(plain_inverse) * plain_ratio)
    return Fit(coefficients, np.sqrt(squared), freedom, between)


def _weighted(
    values: np.ndarray, weights: np.ndarray, design: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients, their covariance, and the weighted squares relative to those expected."""
    inverse = np.linalg.inv(design.T @ (weights[:, None] * design))  # (num_columns, num_columns)
    coefficients = inverse @ design.T @ (weights * values)
    squares = weights @ (values - design @ coefficients) ** 2
    return coefficients, inverse, float(squares / (len(values) - design.shape[1]))


def _between(values: np.ndarray, variances: np.ndarray, design: np.ndarray) -> float:
    """τ² for which the weighted squares are as large as expected; 0 if they are smaller."""

    def excess(between: float) -> float:
        return _weighted(values, 1 / (variances + between), design)[2] - 1

    if excess(0) <= 0:
        return 0.0
    freedom = len(values) - design.shape[1]
    most = float(np.sum((values - values.mean()) ** 2)) / freedom  # here the squares are smaller
    return float(brentq(excess, 0, most, xtol=1e-15, rtol=1e-10))


class Summary(NamedTuple):
    """A mean over data sets.

    Attributes:
        value: the mean.
        error: its standard error.
        freedom: degrees of freedom of its t interval.
        num_data: data sets.
        between: standard deviation of the true values between data sets, τ; None of one.
        share: I², the part of the spread that is more than chance; None of one.
        low: lower end of the interval.
        high: upper end of the interval.
        p: of the two-sided test that the mean is zero.
        predicted: interval for the true value of another data set; None of fewer than three.
    """

    value: float
    error: float
    freedom: float
    num_data: int
    between: float | None
    share: float | None
    low: float
    high: float
    p: float
    predicted: tuple[float, float] | None


def summarise(values: np.ndarray, variances: np.ndarray, freedom: float, level: float) -> Summary:
    """Random-effects mean of data sets; of one its own value.

    I² is that of Higgins & Thompson (2002), the interval for another data set that of Higgins,
    Thompson & Spiegelhalter (2009).

    Args:
        values: ``(num_data,)``.
        variances: ``(num_data,)``.
        freedom: degrees of freedom of the variance, which count for one data set alone.
        level: of the intervals, such as .95.
    """
    if len(values) == 1:
        error = float(np.sqrt(variances[0]))
        low, high = interval(values[0], error, freedom, level)
        p = two_sided(values[0], error, freedom)
        return Summary(float(values[0]), error, freedom, 1, None, None, low, high, p, None)
    design = np.ones((len(values), 1))
    fit = random_effects(values, variances, design)
    value, error = float(fit.coefficients[0]), float(fit.errors[0])
    ratio = _weighted(values, 1 / np.maximum(variances, LEAST), design)[2]  # Q / (k - 1)
    predicted = None
    if len(values) > 2:
        wide = float(np.sqrt(fit.between + error**2))
        predicted = interval(value, wide, len(values) - 2, level)
    return Summary(
        value,
        error,
        fit.freedom,
        len(values),
        float(np.sqrt(fit.between)),
        max(0.0, 1 - 1 / ratio) if ratio else 0.0,
        *interval(value, error, fit.freedom, level),
        two_sided(value, error, fit.freedom),
        predicted,
    )


class Line(NamedTuple):
    """A regression on one variable.

    Attributes:
        slope: change of the value when the variable grows by one.
        error: standard error of the slope.
        freedom: degrees of freedom of its t interval.
        low: lower end of the interval.
        high: upper end of the interval.
        p: of the two-sided test that there is no slope.
        num_data: points.
        is_within: the slope within groups of points, not across them.
        places: values of the variable from the first to the last point, ``(num_places,)``.
        band: the line and both ends of its interval there, ``(3, num_places)``.
    """

    slope: float
    error: float
    freedom: int
    low: float
    high: float
    p: float
    num_data: int
    is_within: bool
    places: np.ndarray
    band: np.ndarray


def regress(
    variable: np.ndarray,
    values: np.ndarray,
    variances: np.ndarray,
    level: float,
    groups: Sequence[int] = (),
) -> Line:
    """Random-effects regression (meta-regression), see :func:`random_effects`.

    Args:
        variable: ``(num_data,)``, at least three points, two of them different.
        values: ``(num_data,)``.
        variances: ``(num_data,)``.
        level: of the intervals.
        groups: ``(num_data,)`` numbers from 0 of points that share what is no chance of their own:
            each group has its own height, and the line is their mean. Empty: all are one.
    """
    ones = np.ones(len(values))
    member = np.eye(max(groups, default=0) + 1)[list(groups) or [0] * len(values)]
    heights = member[:, 1:] - member[:, :1]  # (num_data, num_groups - 1), each sums to 0
    places = np.linspace(variable.min(), variable.max(), 15)
    band = []
    for place in places:  # the line there is the first coefficient of the moved variable
        design = np.column_stack([ones, variable - place, heights])
        fit = random_effects(values, variances, design)
        ends = interval(fit.coefficients[0], fit.errors[0], fit.freedom, level)
        band.append((fit.coefficients[0], *ends))
    slope, error = float(fit.coefficients[1]), float(fit.errors[1])
    ends = interval(slope, error, fit.freedom, level)
    p = two_sided(slope, error, fit.freedom)
    shown = np.array(band).T
    return Line(slope, error, fit.freedom, *ends, p, len(values), bool(groups), places, shown)


def interval(value: float, error: float, freedom: float, level: float) -> tuple[float, float]:
    """Ends of the t interval."""
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return float(value) - half, float(value) + half


def two_sided(value: float, error: float, freedom: float) -> float:
    """Two-sided p of the test that the true value is zero."""
    if error == 0:
        return float(value == 0)
    return float(2 * stats.t.sf(abs(value) / error, freedom))


def equivalence(value: float, error: float, freedom: float, margin: float) -> float:
    """Larger p of two one-sided tests that the value is beyond ± ``margin`` (Schuirmann, 1987).

    It is below α exactly if the interval of level 1 - 2α lies within the margin.
    """
    room = margin - abs(value)
    if error == 0:
        return float(room <= 0)
    return float(stats.t.sf(room / error, freedom))
