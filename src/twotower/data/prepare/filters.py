"""Checks and filters of raw interactions: threshold, repeated pairs, k-core, thinned users."""

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
import polars as pl

from twotower.data.frames import Frames
from twotower.data.prepare.weights import check_weights
from twotower.data.splits import TRAIN, UNITS_PER_SECOND
from twotower.errors import UserError, check_choice, check_number

MAX_ID_LENGTH = 1000
DAY_S = 86_400
NUM_LAST = 2  # interactions of a user that thinning keeps: data/split=leave_last_out holds them out
EARLIEST_S = 631_152_000  # 1990-01-01
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


class Filters(NamedTuple):
    """Which interactions are kept.

    Attributes:
        min_value: interactions with a lower rating are dropped; None keeps all.
        duplicates: of a user's interactions with the same item (and the same behaviour) keep the
            ``first``, the ``last`` or ``all``. With ``last``, an item is missing in the history
            where the user comes back to it later, so histories depend on the future.
        k_core: drop users and items with fewer interactions, until none is left to drop; 0 keeps
            all.
        max_per_user: keep at most so many interactions of each user, drawn at random; None keeps
            all. See :func:`_thinned`.
        thinning_seed: of the draw.
    """

    min_value: float | None
    duplicates: str
    k_core: int
    max_per_user: int | None = None
    thinning_seed: int = 0

    def check(self) -> None:
        """Refuse values out of range."""
        if self.min_value is not None:
            check_number("data.min_value", self.min_value)
        check_choice("data.duplicates", self.duplicates, ("first", "last", "all"))
        check_number("data.k_core", self.k_core, 0)
        if self.max_per_user is not None:
            check_number("data.max_per_user", self.max_per_user, NUM_LAST + 1)
        check_number("data.thinning_seed", self.thinning_seed, 0)

    def plain(self) -> dict[str, object]:
        """Plain values, for the cache key."""
        values = self._asdict()
        if self.max_per_user is None:  # keeps data that were prepared before it existed
            del values["max_per_user"], values["thinning_seed"]
        return values


def check_interactions(frames: Frames) -> None:
    """Check ids, times and weights.

    Args:
        frames: a reader's.

    Raises:
        UserError: for missing, blank or overlong ids, missing times, times in the future, and
            weights below 0.
    """
    interactions = frames.interactions
    if interactions.is_empty():
        raise UserError("the data hold no interactions")
    for column in ("user", "item", "time"):
        missing = interactions[column].is_null()
        if interactions[column].dtype == pl.String:
            missing |= (interactions[column].str.strip_chars() == "").fill_null(False)
        if num_missing := missing.sum():
            place = frames.where(missing.arg_max() or 0)
            raise UserError(
                f"{num_missing:,} interactions have no {column}, the first is {place}: "
                "fill or remove them"
            )
    for column in ("user", "item"):
        if interactions[column].dtype == pl.String:
            length = interactions[column].str.len_chars()
            row = length.arg_max() or 0
            if length[row] > MAX_ID_LENGTH:
                raise UserError(
                    f"{frames.where(row)} has a {column} of {length[row]:,} characters, at most "
                    f"{MAX_ID_LENGTH:,} are allowed: a quote or a line break is missing in the file"
                )
    if "weight" in interactions.columns:
        check_weights(frames)
    if frames.time_unit in UNITS_PER_SECOND:
        _check_times(interactions["time"], frames.time_unit, frames.where)


def _check_times(times: pl.Series, unit: str, where: Callable[[int], str]) -> None:
    """Refuse times before 1990 or in the future: they are of another unit, or placeholders."""
    for row in (times.arg_min(), times.arg_max()):
        assert row is not None
        value = times[row]
        if _is_plausible(value, unit):
            continue
        guess = ""
        for other, name in UNIT_NAMES.items():
            if _is_plausible(value, other):
                guess = (
                    f"; in {name} it is {moment(value, other)}, so units are mixed or '{unit}' is "
                    "wrong"
                )
                break
        raise UserError(
            f"{where(row)} has the time {value}, which is {moment(value, unit)} in "
            f"{UNIT_NAMES[unit]}, before 1990 or in the future{guess}: correct or remove such "
            "rows, or set the right unit"
        )


def _is_plausible(value: int, unit: str) -> bool:
    return EARLIEST_S <= value / UNITS_PER_SECOND[unit] <= time.time() + DAY_S


def moment(value: float, unit: str) -> str:
    """A time as a date, or as the number that it is."""
    try:
        seconds = value / UNITS_PER_SECOND[unit]
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")
    except (KeyError, ValueError, OverflowError, OSError):
        return f"{value:,}"


def filter_interactions(
    coded: pl.DataFrame, filters: Filters
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Threshold, order, repeated pairs, k-core, thinning.

    Args:
        coded: ``user`` and ``item`` as numbers from 0, ``time`` and the reader's other columns, in
            file order.
        filters: what to keep.

    Returns:
        The rest sorted by user, time and file order; rows dropped, by reason.

    Raises:
        UserError: if nothing is left, or a threshold is set for data without ratings.
    """
    dropped: dict[str, int] = {}
    kept = coded
    if filters.min_value is not None:
        if "value" not in coded.columns:
            raise UserError(
                f"data.min_value={filters.min_value} needs ratings, and these data have none: name "
                "the column of your own table, data.reader.columns.value=<column>; else set "
                "data.min_value=null"
            )
        kept = kept.filter(pl.col("value").is_not_null() & pl.col("value").is_not_nan())
        dropped["without a rating"] = len(coded) - len(kept)
        rated = len(kept)
        kept = kept.filter(pl.col("value") >= filters.min_value)
        dropped[f"rated below {filters.min_value:g}"] = rated - len(kept)
    if not _is_sorted(kept):
        kept = kept.sort("user", "time", maintain_order=True)
    if filters.duplicates != "all":
        before = len(kept)
        kept = kept.filter(_distinct(kept, filters.duplicates))
        dropped[f"repeated pairs (the {filters.duplicates} is kept)"] = before - len(kept)
    if filters.k_core > 1:
        before = len(kept)
        kept = _k_core(kept, filters.k_core)
        reason = f"users or items with fewer than {filters.k_core} interactions"
        dropped[reason] = before - len(kept)
    if filters.max_per_user is not None:
        before = len(kept)
        kept = _thinned(kept, filters.max_per_user, filters.thinning_seed)
        limit = f"data.max_per_user={filters.max_per_user}"
        reason = f"beyond {limit}, drawn with seed {filters.thinning_seed}"
        dropped[reason] = before - len(kept)
    if kept.is_empty():
        settings = ", ".join(f"data.{name}={value}" for name, value in filters.plain().items())
        raise UserError(f"no interaction is left of {len(coded):,} after {settings}: lower them")
    return kept, {reason: count for reason, count in dropped.items() if count}


def _is_sorted(coded: pl.DataFrame) -> bool:
    user, moments = coded["user"].to_numpy(), coded["time"].to_numpy()
    same, later = user[1:] == user[:-1], user[1:] > user[:-1]
    return bool((later | (same & (moments[1:] >= moments[:-1]))).all())


def _distinct(coded: pl.DataFrame, keep: str) -> pl.Series:
    """Mask of the first or last row of each (user, item, behaviour)."""
    num_items = coded["item"].to_numpy().max(initial=0) + 1
    key = pl.col("user").cast(pl.Int64) * int(num_items) + pl.col("item")
    if "behaviour" in coded.columns:
        key = key * 256 + pl.col("behaviour")
    mask = key.is_first_distinct() if keep == "first" else key.is_last_distinct()
    return coded.select(mask=mask)["mask"]


def _thinned(coded: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """At most ``most`` interactions of each user, in their order.

    The last ``NUM_LAST`` always stay, so that every dose is tested on the same interactions where
    they are held out; of data with a split of their own all held-out ones stay, and ``most`` is the
    number for training. The others are drawn at random: a smaller dose is a part of a larger one.

    Args:
        coded: sorted by user and time, with ``part`` for data with a split of their own.
        most: interactions of a user.
        seed: of the draw.
    """
    user = coded["user"].to_numpy()
    draw = np.random.default_rng(seed).random(len(coded))
    if "part" in coded.columns:
        stays = coded["part"].to_numpy() != TRAIN
    else:
        stays = np.arange(len(user)) >= np.searchsorted(user, user, side="right") - NUM_LAST
        most -= NUM_LAST
    order = np.lexsort((draw, stays, user))  # of each user, first the rows that may go
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user)) - np.searchsorted(user, user)
    return coded.filter(pl.Series(stays | (place < most)))


def _k_core(coded: pl.DataFrame, k: int) -> pl.DataFrame:
    while True:
        user, item = coded["user"].to_numpy(), coded["item"].to_numpy()
        enough = (np.bincount(user)[user] >= k) & (np.bincount(item)[item] >= k)
        if enough.all():
            return coded
        coded = coded.filter(pl.Series(enough))
