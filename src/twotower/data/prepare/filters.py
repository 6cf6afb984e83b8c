"""Checks and filters of raw interactions: threshold, repeated pairs, k-core, thinned users."""

import time
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
import polars as pl

from twotower.data.blocks import Column, Storage, blocks, counts, user_blocks
from twotower.data.frames import Frames
from twotower.data.prepare.coding import Coded
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
    types = frames.interactions.lazy().collect_schema()
    wrong, length = {}, {}
    for column in ("user", "item", "time"):
        wrong[column] = pl.col(column).is_null()
        if types[column] == pl.String:
            wrong[column] |= (pl.col(column).str.strip_chars() == "").fill_null(False)
            length[column] = pl.col(column).str.len_chars()
    found = frames.collect(
        pl.len().alias("rows"),
        *(mask.sum().alias(f"wrong {column}") for column, mask in wrong.items()),
        *(length[column].max().alias(f"longest {column}") for column in length),
        *(getattr(pl.col("time"), which)().alias(which) for which in ("min", "max")),
    ).row(0, named=True)
    if not found["rows"]:
        raise UserError("the data hold no interactions")
    for column, mask in wrong.items():
        if num := found[f"wrong {column}"]:
            raise UserError(
                f"{num:,} interactions have no {column}, the first is {frames.place(mask)}: "
                "fill or remove them"
            )
    for column, characters in length.items():
        if (most := found[f"longest {column}"]) > MAX_ID_LENGTH:
            raise UserError(
                f"{frames.place(characters == most)} has a {column} of {most:,} characters, at "
                f"most {MAX_ID_LENGTH:,} are allowed: a quote or a line break is missing in the "
                "file"
            )
    if "weight" in types:
        check_weights(frames)
    if frames.time_unit in UNITS_PER_SECOND:
        for value in (found["min"], found["max"]):
            _check_time(value, frames)


def _check_time(value: float, frames: Frames) -> None:
    """Refuse a time before 1990 or in the future: it is of another unit, or a placeholder."""
    unit = frames.time_unit
    if _is_plausible(value, unit):
        return
    guess = ""
    for other, name in UNIT_NAMES.items():
        if _is_plausible(value, other):
            guess = (
                f"; in {name} it is {moment(value, other)}, so units are mixed or '{unit}' is wrong"
            )
            break
    raise UserError(
        f"{frames.place(pl.col('time') == value)} has the time {value}, which is "
        f"{moment(value, unit)} in {UNIT_NAMES[unit]}, before 1990 or in the future{guess}: "
        "correct or remove such rows, or set the right unit"
    )


def _is_plausible(value: float, unit: str) -> bool:
    return EARLIEST_S <= value / UNITS_PER_SECOND[unit] <= time.time() + DAY_S


def moment(value: float, unit: str) -> str:
    """A time as a date, or as the number that it is."""
    try:
        seconds = value / UNITS_PER_SECOND[unit]
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")
    except (KeyError, ValueError, OverflowError, OSError):
        return f"{value:,}"


def threshold(value: pl.Expr, filters: Filters, columns: list[str]) -> dict[str, pl.Expr]:
    """Which interactions the ratings keep, in turn, by the reason why others are dropped.

    Args:
        value: the ratings.
        filters: what to keep.
        columns: of the interactions.

    Raises:
        UserError: if a threshold is set for data without ratings.
    """
    if filters.min_value is None:
        return {}
    if "value" not in columns:
        raise UserError(
            f"data.min_value={filters.min_value} needs ratings, and these data have none: name "
            "the column of your own table, data.reader.columns.value=<column>; else set "
            "data.min_value=null"
        )
    return {
        "without a rating": value.is_not_null() & value.is_not_nan(),
        f"rated below {filters.min_value:g}": value >= filters.min_value,
    }


def filter_interactions(coded: Coded, filters: Filters, storage: Storage) -> Coded:
    """Repeated pairs, k-core, thinning.

    Args:
        coded: all interactions that the ratings keep.
        filters: what to keep.
        storage: makes the arrays of the rest.

    Raises:
        UserError: if nothing is left.
    """
    user, item = coded.column("user"), coded.column("item")
    keep = np.ones(len(user), dtype=bool)
    dropped = dict(coded.dropped)
    before = len(user)

    def note(reason: str) -> None:
        nonlocal before
        dropped[reason] = before - (before := int(keep.sum()))

    if filters.duplicates != "all":
        behaviour = coded.columns.get("behaviour")
        for own in user_blocks(user):
            one = None if behaviour is None else behaviour[own]
            keep[own] = _distinct(user[own], item[own], one, filters.duplicates)
        note(f"repeated pairs (the {filters.duplicates} is kept)")
    if filters.k_core > 1:
        _k_core(coded, keep, filters.k_core)
        note(f"users or items with fewer than {filters.k_core} interactions")
    if filters.max_per_user is not None:
        part = coded.column("part") if "part" in coded.columns else None
        generator = np.random.default_rng(filters.thinning_seed)
        for own in user_blocks(user):
            left = np.flatnonzero(keep[own])
            held_out = None if part is None else part[own][left] != TRAIN
            stays = _thinned(user[own][left], held_out, filters.max_per_user, generator)
            keep[own][left[~stays]] = False
        limit = f"data.max_per_user={filters.max_per_user}"
        note(f"beyond {limit}, drawn with seed {filters.thinning_seed}")
    if not before:
        settings = ", ".join(f"data.{name}={value}" for name, value in filters.plain().items())
        raise UserError(f"no interaction is left of {coded.num_raw:,} after {settings}: lower them")
    columns = coded.columns
    if before < len(user):
        columns = {name: storage.take(column, keep) for name, column in columns.items()}
    dropped = {reason: count for reason, count in dropped.items() if count}
    return coded._replace(columns=columns, dropped=dropped)


def _distinct(
    user: np.ndarray, item: np.ndarray, behaviour: Column | None, keep: str
) -> np.ndarray:
    """Mask of the first or last row of each (user, item, behaviour)."""
    key = (user.astype(np.int64) - user[0]) * (int(item.max()) + 1) + item
    if behaviour is not None:
        key = key * 256 + np.asarray(behaviour)
    order = np.argsort(key, kind="stable")  # equal ones in order of time
    key = key[order]
    differs = np.ones(len(key) + 1, dtype=bool)  # from the one before
    differs[1:-1] = key[1:] != key[:-1]
    mask = np.empty(len(key), dtype=bool)
    mask[order] = differs[:-1] if keep == "first" else differs[1:]
    return mask


def _thinned(
    user: np.ndarray, held_out: np.ndarray | None, most: int, generator: np.random.Generator
) -> np.ndarray:
    """Mask of at most ``most`` interactions of each user.

    The last ``NUM_LAST`` always stay, so that every dose is tested on the same interactions where
    they are held out; of data with a split of their own all held-out ones stay, and ``most`` is the
    number for training. The others are drawn at random: a smaller dose is a part of a larger one.

    Args:
        user: ``(num_interactions,)``, sorted by user and time.
        held_out: mask of those held out by the data's own split; None: there is none.
        most: interactions of a user.
        generator: of the draw.
    """
    draw = generator.random(len(user))
    stays = held_out
    if stays is None:
        stays = np.arange(len(user)) >= np.searchsorted(user, user, side="right") - NUM_LAST
        most -= NUM_LAST
    order = np.lexsort((draw, stays, user))  # of each user, first the rows that may go
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user)) - np.searchsorted(user, user)
    return stays | (place < most)


def _k_core(coded: Coded, keep: np.ndarray, k: int) -> None:
    """Drop from ``keep`` the rows of users and items with fewer, until none is left to drop."""
    user, item = coded.column("user"), coded.column("item")
    num, before = int(keep.sum()), -1
    while num != before:
        before, num = num, 0
        enough_user = counts(user, len(coded.user_ids), keep) >= k
        enough_item = counts(item, len(coded.item_ids), keep) >= k
        for own in blocks(len(user)):
            keep[own] &= enough_user[user[own]] & enough_item[item[own]]
            num += int(keep[own].sum())
