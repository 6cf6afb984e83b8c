"""When a trial of a search ends early: successive halving and hyperband.

A trial is compared with trials that had ended when it was asked for. So its thresholds are known
before it starts, in whichever process, and the same after a restart.

Sources: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), ASHA's
stopping form; Li et al., "Hyperband" (JMLR 2018).
"""

from collections.abc import Sequence
from typing import NamedTuple

BRACKETS = 3  # of hyperband
DIGITS = 6  # of a threshold, which is shown among a trial's settings


class Ended(NamedTuple):
    """A trial that has ended.

    Attributes:
        number: in the order of asking.
        curve: validation by the number of epochs trained.
        is_pruned: a trial that is not counts at all later epochs too, with its best value.
    """

    number: int
    curve: dict[int, float]
    is_pruned: bool


def thresholds(
    pruner: str, number: int, earlier: Sequence[Ended], first: int, factor: int, mode: str
) -> list[float | None] | None:
    """The value that a trial must have after ``first``, ``first * factor``, … epochs to go on.

    It goes on if it is among the best ``1 / factor`` of the trials that were compared there, itself
    included. Where fewer than ``factor`` would be compared, every trial goes on.

    Args:
        pruner: ``successive_halving`` or ``hyperband``.
        number: of the trial.
        earlier: trials that have ended.
        first: epochs before the first comparison.
        factor: see above.
        mode: ``max`` or ``min``.

    Returns:
        A value for each comparison, None where every trial goes on; None for no comparison.
    """
    skipped = bracket_of(number, factor) if pruner == "hyperband" else 0
    if pruner == "hyperband":
        earlier = [one for one in earlier if bracket_of(one.number, factor) == skipped]
    found: list[float | None] = [None] * skipped
    last = max((max(one.curve, default=0) for one in earlier), default=0)
    while (epoch := first * factor ** len(found)) <= last:
        values = [value for one in earlier if (value := _after(one, epoch, mode)) is not None]
        values.sort(reverse=mode == "max")
        num = len(values) + 1
        limit = values[num // factor - 1] if num >= factor else None
        found.append(None if limit is None else float(f"{limit:.{DIGITS}g}"))
    return found if any(value is not None for value in found) else None


def _after(trial: Ended, epoch: int, mode: str) -> float | None:
    """The best value up to an epoch, None if the trial had been pruned before it."""
    if trial.is_pruned and max(trial.curve, default=0) < epoch:
        return None
    values = [value for at, value in trial.curve.items() if at <= epoch]
    return (max if mode == "max" else min)(values, default=None)


def bracket_of(number: int, factor: int) -> int:
    """Which bracket of hyperband a trial is in: bracket ``b`` leaves out the first ``b`` rungs.

    Each gets its share of trials as evenly as it can: with a factor of 3, 9 to 5 to 3.
    """
    shares = [
        -(-BRACKETS * factor ** (BRACKETS - 1 - b) // (BRACKETS - b)) for b in range(BRACKETS)
    ]
    counts = [0] * BRACKETS
    chosen = 0
    for _ in range(number + 1):
        chosen = min(range(BRACKETS), key=lambda b: (counts[b] + 1) / shares[b])
        counts[chosen] += 1
    return chosen
