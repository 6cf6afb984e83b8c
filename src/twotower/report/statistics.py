"""Is a difference more than chance? Paired tests over users, t intervals over seeds, Holm's correction over both."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

CELLS_PER_CHUNK = 1 << 22  # resamples times users at once


class Evidence(NamedTuple):
    """What speaks for a mean difference.

    Attributes:
        low: of its interval.
        high: of its interval.
        p: of the test that it is zero, two-sided.
        adjusted: the same after Holm's correction; equal to ``p`` before it.
    """

    low: float
    high: float
    p: float
    adjusted: float


def bootstrap(
    differences: np.ndarray, resamples: int, level: float, generator: np.random.Generator
) -> np.ndarray:
    """Percentile intervals of the mean by drawing users with replacement (Efron, 1979).

    Rows of zeros are drawn but not stored: how often the others appear is binomial, and each of them is as likely.

    Args:
        differences: ``(num_users, num_comparisons)``; a draw takes the whole row, so comparisons share their users.
        resamples: number of draws.
        level: such as .95.
        generator: of random numbers.

    Returns:
        ``(2, num_comparisons)`` low and high ends.
    """
    num_users = len(differences)
    kept = differences[(differences != 0).any(1)]  # (num_kept, num_comparisons)
    means = np.zeros((resamples, differences.shape[1]))
    if not len(kept):
        return means[:2]
    for own in _chunks(resamples, len(kept)):
        count = generator.binomial(num_users, len(kept) / num_users, len(means[own]))
        drawn = generator.integers(0, len(kept), count.sum(), dtype=np.int32)
        cell = np.repeat(np.arange(len(count)) * len(kept), count) + drawn
        times = np.bincount(cell, minlength=len(count) * len(kept)).reshape(len(count), len(kept))
        means[own] = times.astype(float) @ kept / num_users
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)


def sign_flip(
    differences: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Two-sided p values of the paired permutation test.

    Of equal models, each user's difference may as well have the other sign.

    Args:
        differences: ``(num_users, num_comparisons)``.
        resamples: random flips; the observed one counts too, so no p is 0 (Phipson & Smyth, 2010).
        generator: of random numbers.

    Returns:
        ``(num_comparisons,)``.
    """
    kept = differences[(differences != 0).any(1)]  # zeros have no sign
    if not len(kept):
        return np.ones(differences.shape[1])
    observed = kept.sum(0)
    bar = np.abs(observed) - 1e-9 * np.abs(kept).sum(0)  # equal sums may differ by rounding
    extreme = np.zeros(len(observed))
    for own in _chunks(resamples, len(kept)):
        num = own.stop - own.start
        bits = np.unpackbits(
            generator.integers(0, 256, (num, -(-len(kept) // 8)), dtype=np.uint8),
            axis=1,
            count=len(kept),
        )
        flipped = 2 * (bits.astype(float) @ kept) - observed
        extreme += (np.abs(flipped) >= bar).sum(0)
    return (1 + extreme) / (1 + resamples)


def _chunks(resamples: int, width: int) -> list[slice]:
    size = max(1, CELLS_PER_CHUNK // max(1, width))
    return [slice(start, min(start + size, resamples)) for start in range(0, resamples, size)]


def over_seeds(
    variant: dict[int, float], baseline: dict[int, float], level: float
) -> Evidence | None:
    """The t interval of the difference of two variants' means, from the spread over seeds.

    Paired by seed where both have at least two in common; else Welch's, with its degrees of freedom rounded down.

    Args:
        variant: metric of each seed's run.
        baseline: the same.
        level: such as .95.

    Returns:
        None where there is no spread to judge by: fewer than two seeds on a side.
    """
    common = sorted(variant.keys() & baseline.keys())
    if len(common) >= 2:
        differences = np.array([variant[seed] - baseline[seed] for seed in common])
        return _t_evidence(
            differences.mean(),
            differences.std(ddof=1) / math.sqrt(len(common)),
            len(common) - 1,
            level,
        )
    one, other = np.array(list(variant.values())), np.array(list(baseline.values()))
    if min(len(one), len(other)) < 2:
        return None
    parts = [values.var(ddof=1) / len(values) for values in (one, other)]
    scale = sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True)
    )
    freedom = int(sum(parts) ** 2 / scale) if scale else 1
    return _t_evidence(one.mean() - other.mean(), math.sqrt(sum(parts)), freedom, level)


def _t_evidence(mean: float, error: float, freedom: int, level: float) -> Evidence:
    if not error:  # all differences are equal
        return Evidence(mean, mean, float(mean == 0), float(mean == 0))
    low, high = stats.t.interval(level, freedom, loc=mean, scale=error)
    p = 2 * stats.t.sf(abs(mean) / error, freedom)
    return Evidence(low, high, p, p)


def holm(p: list[float]) -> list[float]:
    """Holm's step-down correction: the chance of any false finding among them stays below the level (Holm, 1979)."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(np.array(p)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1)
    return adjusted.tolist()
