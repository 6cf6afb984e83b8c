"""The best of a search as it is expected with fewer trials, and the ranking by it."""

from itertools import groupby
from typing import NamedTuple

import numpy as np

from twotower.report.searches import Search


class Curve(NamedTuple):
    """The expected best of a variant by number of trials; smaller is better of ``mode=min``.

    Attributes:
        variant: its name.
        best: ``(num_trials,)``, of 1, 2, … trials.
        spread: ``(num_trials,)``, its standard deviation between searches of so many trials.
        so_far: ``(num_trials,)``, the best so far in the order of the search.
    """

    variant: str
    best: np.ndarray
    spread: np.ndarray
    so_far: np.ndarray


class Ranking(NamedTuple):
    """The variants from the best on, as it is from one number of trials to another."""

    first: int
    last: int
    variants: list[str]


def curves_of(search: Search) -> list[Curve]:
    """A curve for each variant."""
    curves = []
    for own in search.variants:
        best, spread = expected_best(own.values)
        so_far = np.maximum.accumulate(own.values)
        curves.append(Curve(own.variant, search.sign * best, spread, search.sign * so_far))
    return curves


def expected_best(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the largest of 1, 2, … draws (Dodge et al., EMNLP 2019).

    Draws are independent and with replacement. This estimates the mean of a search of so many new
    trials; it is too low where their number comes near that of the values, as nothing better than
    the best of these can be drawn (Tang et al., ACL 2020).

    Args:
        values: ``(num_trials,)``.

    Returns:
        Both ``(num_trials,)``.
    """
    ordered = np.sort(values)
    chances = _chances(len(values))
    mean = chances @ ordered
    centred = ordered - mean[:, None]  # (num_trials, num_trials); keeps digits
    return mean, np.sqrt((chances * centred**2).sum(1))


def _chances(num: int) -> np.ndarray:
    """``(num, num)`` chance that the i-th smallest of the values is the largest of n draws.

    The largest is at most the i-th with the chance (i / num)^n: their equation 5.
    """
    at_most = (np.arange(num + 1) / num) ** np.arange(1, num + 1)[:, None]  # (num, num + 1)
    chances: np.ndarray = np.diff(at_most, axis=1)
    return chances


def chance_above(values: np.ndarray, others: np.ndarray, budget: int) -> float:
    """Chance that the largest of so many draws is above that of others; equal ones count half."""
    below, at_most = (
        (np.searchsorted(np.sort(others), np.sort(values), side) / len(others)) ** budget
        for side in ("left", "right")
    )
    at_most_own = (np.arange(len(values) + 1) / len(values)) ** budget
    return float(np.diff(at_most_own) @ (below + at_most) / 2)


def rankings(search: Search, curves: list[Curve]) -> list[Ranking]:
    """The rankings by number of trials, up to the number that all variants have."""
    table = np.array([search.sign * own.best[: search.num_trials] for own in curves])
    orders = np.argsort(-table, axis=0, kind="stable").T.tolist()  # (num_trials, num_variants)
    found, first = [], 1
    for order, same in groupby(orders):
        last = first + len(list(same)) - 1
        found.append(Ranking(first, last, [curves[place].variant for place in order]))
        first = last + 1
    return found
