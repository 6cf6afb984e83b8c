"""Tests of differences over users and over seeds, corrected for the number of tests."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Evidence(NamedTuple):
    """Interval and test of a mean difference.

    Attributes:
        low: lower end of the interval.
        high: upper end of the interval.
        p: of the two-sided test that the difference is zero.
        adjusted: ``p`` after Holm's correction, see :func:`holm`.
    """

    low: float
    high: float
    p: float
    adjusted: float


def over_users(difference: np.ndarray, resamples: int, level: float, seed: int) -> Evidence:
    """Bootstrap interval and permutation test of a mean difference over users.

    Args:
        difference: ``(num_users,)``.
        resamples: number of draws of each.
        level: of the interval, such as .95.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    low, high = bootstrap(difference, resamples, level, generator)
    p = sign_flip(difference, resamples, generator)
    return Evidence(low, high, p, p)


def bootstrap(
    difference: np.ndarray, resamples: int, level: float, generator: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of a mean by drawing users with replacement (Efron, 1979).

    The arguments are those of :func:`over_users`.
    """
    others = difference[difference != 0]  # often few; how many a draw contains is binomial
    counts = generator.binomial(len(difference), len(others) / len(difference), resamples)
    sums = [generator.choice(others, count).sum() if count else 0 for count in counts]
    ends = np.quantile(sums, [(1 - level) / 2, (1 + level) / 2]) / len(difference)
    return float(ends[0]), float(ends[1])


def sign_flip(difference: np.ndarray, resamples: int, generator: np.random.Generator) -> float:
    """Two-sided p value of the paired permutation test.

    If two models are equal, each user's difference may as well have the other sign. The observed
    signs count as one of the draws, so p > 0 (Phipson & Smyth, 2010).
    """
    others = difference[difference != 0]  # zeros have no sign
    observed = abs(others.sum())
    bar = observed - 1e-9 * np.abs(others).sum()  # equal sums may differ by rounding
    num_extreme = 1
    for _ in range(resamples):
        signs = 2.0 * generator.integers(0, 2, len(others), dtype=np.int8) - 1
        num_extreme += abs((signs * others).sum()) >= bar
    return float(num_extreme / (1 + resamples))


def over_seeds(
    variant: dict[int, float], baseline: dict[int, float], level: float
) -> Evidence | None:
    """Test and t interval of a difference over seeds: paired for equal seeds, else Welch's.

    Args:
        variant: metric of each seed's run.
        baseline: the same.
        level: of the interval, such as .95.

    Returns:
        None with fewer than two seeds on a side.
    """
    if min(len(variant), len(baseline)) < 2:
        return None
    one, other = list(variant.values()), list(baseline.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # if all runs of a side are equal
        if variant.keys() == baseline.keys():
            test = stats.ttest_rel(one, [baseline[seed] for seed in variant])
        else:
            test = stats.ttest_ind(one, other, equal_var=False)
    low, high = map(float, test.confidence_interval(level))
    p = float(np.nan_to_num(test.pvalue, nan=1))  # NaN for no difference at all
    return Evidence(low, high, p, p)


def holm(tests: Sequence[Evidence | None]) -> list[Evidence | None]:
    """Holm's step-down correction (1979), which bounds the chance of any false finding.

    Returns:
        The tests with ``adjusted`` p; None where there is none.
    """
    known = sorted((test for test in tests if test), key=lambda test: test.p)
    raised = np.array([test.p for test in known]) * np.arange(len(known), 0, -1)
    adjusted = np.maximum.accumulate(raised).clip(max=1).tolist()
    by_p = {test.p: value for test, value in zip(known, adjusted, strict=True)}
    return [test and test._replace(adjusted=by_p[test.p]) for test in tests]
