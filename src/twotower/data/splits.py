"""Splits into training, validation and test: one class each, one YAML in ``conf/data/split``."""

import math
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, Protocol

import numpy as np

from twotower.data.blocks import blocks, counts, user_blocks
from twotower.data.frames import TimeUnit
from twotower.errors import UserError, check_choice, check_number

TRAIN, VAL, TEST, NOWHERE = 0, 1, 2, 3
TARGETS = ("all", "first", "last", "successive")

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Rows(NamedTuple):
    """Interactions sorted by user, time and file order, perhaps mapped from files.

    Attributes:
        user: ``(num_interactions,)`` numbers from 0, ascending.
        time: ``(num_interactions,)`` integers or floats.
        time_unit: of ``time``.
        part: ``(num_interactions,)`` of the split that the data come with, or None.
    """

    user: np.ndarray
    time: np.ndarray
    time_unit: TimeUnit
    part: np.ndarray | None


class Split(Protocol):
    """Gives each interaction its part.

    A split may have ``targets``, one of ``TARGETS``; without it they are ``all``.
    """

    def __call__(self, rows: Rows) -> np.ndarray:
        """``(num_interactions,)`` of ``TRAIN``, ``VAL``, ``TEST``, ``NOWHERE`` (unused)."""
        ...


class LeaveLastOut:
    """Each user's last interaction is for test, the one before for validation.

    It looks into other users' future: good for comparing models, not for predicting a launch.

    Args:
        min_history: training interactions that a user needs to be evaluated; users with fewer are
            only in training.
    """

    def __init__(self, min_history: int) -> None:
        check_number("data.split.min_history", min_history, 1)
        self.min_history = min_history

    def __call__(self, rows: Rows) -> np.ndarray:
        """Split by position within the user."""
        num = counts(rows.user, _num_users(rows.user))
        last = (num.cumsum() - 1)[num >= self.min_history + 2]
        part = np.full(len(rows.user), TRAIN, dtype=np.int8)
        part[last], part[last - 1] = TEST, VAL
        return part


class Temporal:
    """One clock for all: training before ``val_from``, validation before ``test_from``, then test.

    Users and items that are not in training are evaluated by the model's policy for cold ids, and
    reported apart.

    Args:
        val_from: a quantile of all interactions' times in (0, 1), a time in the data's unit, or a
            date such as ``2017-10-14`` or ``2017-10-14T12:00`` (UTC).
        test_from: the same, later.
        min_history: training interactions that a user needs to be evaluated; the held-out rows of
            others are dropped.
        targets: what is predicted of a user's interactions in a part. ``all``: all of them at once,
            from what was before the part. ``first``: the first. ``last``: the last, from all before
            it. ``successive``: each in turn, from all before it; then a user with many counts as
            often.
    """

    def __init__(
        self, val_from: float | str, test_from: float | str, min_history: int, targets: str = "all"
    ) -> None:
        check_number("data.split.min_history", min_history, 0)
        check_choice("data.split.targets", targets, TARGETS)
        self.val_from = val_from
        self.test_from = test_from
        self.min_history = min_history
        if (
            targets != "all"
        ):  # keeps the fingerprints of data that were prepared before this existed
            self.targets = targets

    def __call__(self, rows: Rows) -> np.ndarray:
        """Split by time.

        Raises:
            UserError: for data without a common clock, and borders that are no times or in the
                wrong order.
        """
        if rows.time_unit == "order":
            raise UserError(
                "data/split=temporal needs times, and these data have only each user's order: "
                "take leave_last_out"
            )
        val_from = _moment("val_from", self.val_from, rows)
        test_from = _moment("test_from", self.test_from, rows)
        if val_from >= test_from:
            raise UserError(
                f"data.split.val_from={self.val_from} must come before "
                f"data.split.test_from={self.test_from} (here the times {val_from} and {test_from})"
            )
        part = (rows.time >= val_from).astype(np.int8) + (rows.time >= test_from)
        too_few = counts(rows.user, _num_users(rows.user), part == TRAIN) < self.min_history
        for own in blocks(len(part)):
            part[own][(part[own] != TRAIN) & too_few[rows.user[own]]] = NOWHERE
        return part


class TemporalFolds(Temporal):
    """Cross-validation over time: each fold trains on all before its validation and its test part.

    The interactions after the share ``first`` are cut into ``num_folds + 1`` parts of equal size.
    Fold ``i`` is validated on part ``i`` and tested on the next one; later ones are not used. So
    each fold but the last is tested where the next one is validated.

    Args:
        num_folds: how many.
        fold: which, from 0.
        first: share of the interactions that all folds train on.
        min_history: see :class:`Temporal`.
        targets: see :class:`Temporal`.
    """

    def __init__(
        self, num_folds: int, fold: int, first: float, min_history: int, targets: str = "all"
    ) -> None:
        check_number("data.split.num_folds", num_folds, 2)
        check_number("data.split.fold", fold, 0, num_folds - 1)
        check_number("data.split.first", first, 0.01, 0.99)
        borders = np.linspace(first, 1, num_folds + 2)[fold : fold + 3].tolist()
        val_from, test_from, self.end = (round(border, 9) for border in borders)
        super().__init__(val_from, test_from, min_history, targets)

    def __call__(self, rows: Rows) -> np.ndarray:
        """Split by time; see :class:`Temporal`."""
        part = super().__call__(rows)
        if self.end < 1:
            part[rows.time >= _moment("first", self.end, rows)] = NOWHERE
        return part


class RandomRatio:
    """Shares of each user's interactions, drawn at random.

    Histories then also hold later interactions: a protocol of collaborative filtering.

    Args:
        val: share for validation.
        test: share for test.
        seed: of the draw.
        min_history: training interactions that a user needs to be evaluated; users with fewer are
            only in training.
    """

    def __init__(self, val: float, test: float, seed: int, min_history: int) -> None:
        check_number("data.split.val", val, 0, 1)
        check_number("data.split.test", test, 0, 1)
        check_number("data.split.val + data.split.test", val + test, 0, 0.99)
        check_number("data.split.seed", seed, 0)
        check_number("data.split.min_history", min_history, 1)
        self.val = val
        self.test = test
        self.seed = seed
        self.min_history = min_history

    def __call__(self, rows: Rows) -> np.ndarray:
        """Split at random."""
        generator = np.random.default_rng(self.seed)
        part = np.empty(len(rows.user), dtype=np.int8)
        for own in user_blocks(rows.user):
            part[own] = self._of_users(rows.user[own], generator)
        return part

    def _of_users(self, user: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        draw = generator.random(len(user))
        order = np.lexsort((draw, user))  # users in order, each one's rows at random
        num, place = _within_user(user - user[0])
        num_val, num_test = np.floor(num * self.val + 0.5), np.floor(num * self.test + 0.5)
        evaluated = num - num_val - num_test >= self.min_history
        drawn = np.select(
            [evaluated & (place < num_test), evaluated & (place < num_test + num_val)],
            [TEST, VAL],
            TRAIN,
        )
        part = np.empty(len(order), dtype=np.int8)
        part[order] = drawn
        return part


class Given:
    """The split that the data come with.

    Args:
        val: share of each user's training interactions that is drawn for validation, where the data
            have no validation part.
        seed: of the draw.
    """

    def __init__(self, val: float, seed: int) -> None:
        check_number("data.split.val", val, 0, 0.5)
        check_number("data.split.seed", seed, 0)
        self.val = val
        self.seed = seed

    def __call__(self, rows: Rows) -> np.ndarray:
        """Take the given parts.

        Raises:
            UserError: for data without a split of their own.
        """
        if rows.part is None:
            raise UserError(
                "data/split=given: these data come without a split; take leave_last_out, temporal "
                "or random_ratio"
            )
        part: np.ndarray = rows.part.astype(np.int8)
        if not (part == VAL).any() and self.val > 0:
            train = np.flatnonzero(part == TRAIN)
            drawn = RandomRatio(self.val, 0.0, self.seed, 1)(
                Rows(rows.user[train], rows.time[train], rows.time_unit, None)
            )
            part[train] = drawn
        return part


def _num_users(user: np.ndarray) -> int:
    return int(user[-1]) + 1 if len(user) else 0


def _within_user(user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(num_interactions,)`` number of rows of the row's user, and of those after the row."""
    count = np.bincount(user, minlength=1)
    end: np.ndarray = count.cumsum()
    return count[user], end[user] - 1 - np.arange(len(user))


def _moment(name: str, value: float | str, rows: Rows) -> float:
    """A border as a time in the data's unit, a whole number where the times are whole numbers.

    Raises:
        UserError: if it is none.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise UserError(
                f"data.split.{name}={value} is not a date: write 2017-10-14 or 2017-10-14T12:00"
            ) from None
        if rows.time_unit not in UNITS_PER_SECOND:
            raise UserError(
                f"data.split.{name}={value}: these data count steps, not seconds; give a quantile "
                "such as 0.9"
            )
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        microseconds = (moment - EPOCH) // timedelta(microseconds=1)
        return microseconds * UNITS_PER_SECOND[rows.time_unit] // 10**6
    check_number(f"data.split.{name}", value, 0)
    if 0 < value < 1:
        place = math.ceil((len(rows.time) - 1) * value)
        quantile: float = np.partition(rows.time, place)[place].item()
        return quantile
    return value if rows.time.dtype.kind == "f" else math.ceil(value)


def held_out(position: np.ndarray, user: np.ndarray, targets: str) -> tuple[np.ndarray, np.ndarray]:
    """First target and number of targets of each row of an evaluation.

    Args:
        position: ``(num_held_out,)`` of a part's interactions, ascending.
        user: ``(num_held_out,)`` of each; those of a user follow one another in order of time.
        targets: one of ``TARGETS``.
    """
    if targets == "successive":
        return position, np.ones(len(position), dtype=np.int32)
    first = np.flatnonzero(np.diff(user, prepend=-1))
    num = np.diff(first, append=len(position)).astype(np.int32)
    if targets == "last":
        first = first + num - 1
    return position[first], num if targets == "all" else np.ones_like(num)
