"""A difference of two variants relative to the second, with its error over seeds and users."""

from typing import NamedTuple

import numpy as np

from twotower.metrics.base import RankMetric
from twotower.report.ranks import Ranks, per_user
from twotower.report.variants import Variant


class Estimate(NamedTuple):
    """A relative difference, such as .02 for 2 % more, and how far chance may have moved it.

    Attributes:
        value: ratio of the two means, less one.
        absolute: difference of the means.
        over_seeds: standard error if other seeds had been trained for the same users.
        over_users: standard error if other users had been tested with the same trained models; None
            without ranks.
        error: standard error for other seeds and other users.
        freedom: degrees of freedom of ``error``, by Satterthwaite's formula.
        seed_variance: of one trained pair, without what the sample of users adds to it; may be
            negative, as it is an unbiased estimate.
        num_seeds: pairs, or of different seeds the harmonic mean of both numbers.
        seed_freedom: degrees of freedom of ``seed_variance``.
    """

    value: float
    absolute: float
    over_seeds: float
    over_users: float | None
    error: float
    freedom: float
    seed_variance: float
    num_seeds: float
    seed_freedom: int


def estimate(one: Variant, other: Variant, name: str, metric: RankMetric) -> Estimate | None:
    """The difference of ``one`` to ``other``, relative to ``other``.

    Args:
        one: with a run for each seed; paired with ``other`` if both have the same seeds.
        other: the same.
        name: of the metric.
        metric: with one cut-off.

    Returns:
        None with fewer than two seeds on a side, or if ``other`` is zero.
    """
    means, start = [side.values(name) for side in (one, other)], other.mean(name)
    if min(map(len, means)) < 2 or start <= 0:
        return None
    ratio = one.mean(name) / start
    # the error of a ratio is that of one - ratio * other, in units of other (delta method)
    scales = (1 / start, -ratio / start)
    seeds = [scale * np.array(list(own.values())) for scale, own in zip(scales, means, strict=True)]
    users = None
    if one.has_ranks and other.has_ranks:
        users = [
            scale * _matrix(side, metric) for scale, side in zip(scales, (one, other), strict=True)
        ]
    if means[0].keys() == means[1].keys():
        seeds = [seeds[0] + seeds[1]]  # (num_seeds,)
        users = users and [users[0] + users[1]]  # (num_seeds, num_users)
    return combine(ratio - 1, one.mean(name) - start, seeds, users)


def _matrix(variant: Variant, metric: RankMetric) -> np.ndarray:
    """``(num_seeds, num_users)`` values of a metric; seeds ascending, as of ``values``."""
    ranks = [run.ranks for run in variant.runs if isinstance(run.ranks, Ranks)]
    return np.stack([per_user(own, metric) for own in ranks])


def combine(
    value: float, absolute: float, seeds: list[np.ndarray], users: list[np.ndarray] | None
) -> Estimate:
    """Variance of a mean over seeds and users that are crossed, from the two-way table.

    The variance over seeds and the one over users both contain that of single cells, which is
    subtracted once (Cornfield & Tukey, 1956). A negative rest counts as zero.

    Args:
        value: relative difference.
        absolute: difference.
        seeds: for each independent side ``(num_seeds,)``, its relative value of each seed.
        users: the same of each user, ``(num_seeds, num_users)``; None without ranks.
    """
    parts = [np.var(own, ddof=1) / len(own) for own in seeds]
    by_seed, cells, by_user, num_users = sum(parts), 0.0, 0.0, 2
    if users is not None:
        cells = sum(map(_of_cells, users))
        mean = sum(own.mean(0) for own in users)  # (num_users,)
        num_users = len(mean)
        by_user = np.var(mean, ddof=1) / num_users
    total = by_user + max(0.0, by_seed - cells)
    spread = sum(part**2 / (len(own) - 1) for part, own in zip(parts, seeds, strict=True))
    spread += by_user**2 / (num_users - 1)
    num_seeds = len(seeds) / sum(1 / len(own) for own in seeds)
    seed_freedom = sum(len(own) - 1 for own in seeds)
    return Estimate(
        value=value,
        absolute=absolute,
        over_seeds=float(np.sqrt(by_seed)),
        over_users=None if users is None else float(np.sqrt(by_user)),
        error=float(np.sqrt(total)),
        freedom=float(total**2 / spread) if spread else float(seed_freedom),
        seed_variance=float(num_seeds * (by_seed - cells)),
        num_seeds=num_seeds,
        seed_freedom=seed_freedom,
    )


def _of_cells(table: np.ndarray) -> float:
    """Variance of the mean of ``(num_seeds, num_users)`` from what both means leave over."""
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    num_seeds, num_users = table.shape
    variance = (rest**2).sum() / ((num_seeds - 1) * (num_users - 1))
    return float(variance / table.size)


def variances(estimates: list[Estimate]) -> np.ndarray:
    """``(num_estimates,)`` squared errors as weights of a summary, with a pooled seed variance.

    A few seeds say little on their own variance: as weights such values would favour the data sets
    that happen to have equal runs, and intervals would be too narrow. An estimate without ranks
    counts as the least precise over users.
    """
    freedom = np.array([own.seed_freedom for own in estimates])
    pooled = max(0.0, float(freedom @ [own.seed_variance for own in estimates] / freedom.sum()))
    known = [own.over_users for own in estimates if own.over_users is not None]
    worst = max(known, default=0.0)
    over_users = [worst if own.over_users is None else own.over_users for own in estimates]
    num_seeds = np.array([own.num_seeds for own in estimates])
    found: np.ndarray = np.square(over_users) + pooled / num_seeds
    return found
