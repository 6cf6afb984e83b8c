"""Tests of differences over users and over seeds, their correction, and their power."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

POWER = 0.8  # the usual chance of finding a difference that is there
MAX_SEEDS = 100  # nobody trains more


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


def spread_over_seeds(variant: dict[int, float], baseline: dict[int, float]) -> float | None:
    """Standard deviation of the difference of one run of each, with the same seed if they have.

    Args:
        variant: metric of each seed's run.
        baseline: the same.

    Returns:
        None with fewer than two seeds on a side.
    """
    if min(len(variant), len(baseline)) < 2:
        return None
    if variant.keys() == baseline.keys():
        return float(np.std([variant[seed] - baseline[seed] for seed in variant], ddof=1))
    one, other = (np.var(list(own.values()), ddof=1) for own in (variant, baseline))
    return float(np.sqrt(one + other))


def power(effect: np.ndarray, num_seeds: np.ndarray, alpha: float) -> np.ndarray:
    """Chance that the paired t test of ``over_seeds`` finds a true difference.

    Args:
        effect: the difference divided by the standard deviation of the paired differences.
        num_seeds: at least 2.
        alpha: p values below it count as found.

    Returns:
        In the common shape of ``effect`` and ``num_seeds``.
    """
    freedom = num_seeds - 1
    bar = stats.t.ppf(1 - alpha / 2, freedom)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of very large effects
        found = stats.nct.sf(bar, freedom, np.abs(effect) * np.sqrt(num_seeds))
    # the other side is left out: less than alpha / 2, and a finding of the wrong sign
    certain: np.ndarray = np.nan_to_num(found, nan=1)
    return certain


def seeds_needed(difference: float, spread: float, alpha: float) -> int | None:
    """The fewest seeds that find a true difference of this size with a chance of ``POWER``.

    Returns:
        None if these are more than ``MAX_SEEDS``.
    """
    seeds = np.arange(2, MAX_SEEDS + 1)
    if spread == 0:
        return 2 if difference else None
    enough = power(np.array(difference / spread), seeds, alpha) >= POWER
    return int(seeds[enough.argmax()]) if enough.any() else None


def smallest_found(num_seeds: int, spread: float, alpha: float) -> float:
    """The smallest true difference that so many seeds find with a chance of ``POWER``."""
    effects = np.geomspace(0.01, 1e6, 5000)
    enough = power(effects, np.array(num_seeds), alpha) >= POWER
    return float(effects[enough.argmax()]) * spread
