"""The user's table of interactions: compact columns, and each surprise named with its line."""

from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from twotower.data.categories import most_frequent
from twotower.data.frames import TimeUnit
from twotower.data.table_errors import clip
from twotower.data.table_files import Source, not_blank
from twotower.data.table_values import Clock, clock, compact, may_be_whole, whole
from twotower.types import UserError

PARTS = {"train": 0, "training": 0, "0": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "1": 1}
PARTS |= {"test": 2, "testing": 2, "2": 2}
LOST = "_lost"  # ends the names of columns that mark the values which parsing would lose
INCOMPLETE = "rows without user, item or time"
MAX_BEHAVIOURS = 255


class Wishes(NamedTuple):
    """What the user states; see :class:`~twotower.data.table.Table`."""

    time_unit: TimeUnit | None
    time_format: str | None
    behaviours: list[str] | None
    drop_incomplete: bool


class Clicks(NamedTuple):
    """The interactions.

    Attributes:
        frame: as in :class:`~twotower.data.frames.Frames`.
        time_unit: of its times.
        meaning: of its columns, for people, by role.
        behaviours: names of those that are kept apart.
        dropped: rows left out, by reason.
        remarks: what the user should know.
        where: file and line of a row of ``frame``.
    """

    frame: pl.DataFrame
    time_unit: TimeUnit
    meaning: dict[str, str]
    behaviours: tuple[str, ...]
    dropped: dict[str, int]
    remarks: list[str]
    where: Callable[[int], str]


def read_clicks(source: Source, roles: dict[str, str], wishes: Wishes, whole_elsewhere: dict[str, bool]) -> Clicks:
    """Read the interactions.

    Args:
        source: its files.
        roles: columns of ``user``, ``item`` and, where there are any, ``time``, ``value``, ``behaviour``, ``part``.
        wishes: what the user states.
        whole_elsewhere: whether the other tables' ids of ``user`` and ``item`` are whole numbers.

    Raises:
        UserError: for files that cannot be read, and values that are missing or of the wrong type.
    """
    head = source.head()
    told = clock(source.path, head[roles["time"]], wishes.time_unit, wishes.time_format) if "time" in roles else None
    frame = _collect(source, roles, told, {side for side in ("user", "item") if whole_elsewhere[side]})
    for role in ("time", "value", "part"):
        if f"{role}{LOST}" in frame.columns and not (role == "time" and wishes.drop_incomplete):
            _refuse_lost_values(source, roles[role], role, frame[f"{role}{LOST}"], told.meaning if told else "")
    frame = frame.select(column for column in frame.columns if not column.endswith(LOST))
    kept = [pl.lit(True)]
    dropped: dict[str, int] = {}
    meaning: dict[str, str] = {"time": told.meaning} if told else {}
    behaviours: tuple[str, ...] = ()
    remarks: list[str] = []
    if wishes.behaviours is not None or "behaviour" in roles:
        before = len(frame)
        frame, behaviours, said = _keep_behaviours(source, roles, frame, wishes.behaviours)
        remarks += said
        if wishes.behaviours is not None:
            kept.append(pl.col(roles["behaviour"]).cast(pl.String).is_in(wishes.behaviours))
            dropped[f"behaviours other than {', '.join(wishes.behaviours)}"] = before - len(frame)
    needed = [role for role in ("user", "item", "time") if role in roles]
    if wishes.drop_incomplete:
        before = len(frame)
        frame = frame.drop_nulls(needed)
        present = {role: pl.col(roles[role]).is_not_null() for role in needed}
        kept += [*(present | ({"time": told.parse.is_not_null()} if told else {})).values()]
        dropped[INCOMPLETE] = before - len(frame)

    def passing(rows: pl.LazyFrame) -> pl.LazyFrame:
        return not_blank(source, rows).filter(pl.all_horizontal(kept))

    for role in needed:
        _refuse_gap(source, passing, role, frame[role])
    if told is None:
        frame = frame.with_columns(time=pl.int_range(pl.len(), dtype=pl.Int64))
        remarks.append(
            f"{source.name} has no column of times, so each user's order is that of the file; if the whole file is one log "
            "in order of time, data.reader.time_unit=step says so"
        )
    frame = frame.with_columns(compact(frame[side]) for side in ("user", "item"))
    unit = told.unit if told else wishes.time_unit or "order"
    dropped = {reason: count for reason, count in dropped.items() if count}
    return Clicks(frame, unit, meaning, behaviours, dropped, remarks, lambda row: source.locate(passing, row)[0])


def item_categories(source: Source, roles: dict[str, str], id_type: pl.DataType) -> tuple[pl.DataFrame, int]:
    """The category of each item among the interactions.

    Returns:
        ``item`` and its most frequent ``category`` (ties to the first in the alphabet); how many items have several.
    """
    item = pl.col(roles["item"]).cast(id_type, strict=False)
    category = pl.col(roles["category"]).cast(pl.String)
    pairs = source.collect(lambda rows: rows.select(item=item, category=category).drop_nulls().group_by("item", "category").len())
    return most_frequent(pairs.group_by("item", "category").agg(num=pl.col("len").sum()))


def makes_sense(role: str, head: pl.Series) -> bool:
    """Does a column that only its name makes a ``value`` or a ``part`` hold such values?"""
    values = head.drop_nulls()
    if role == "part":
        return len(values) > 0 and bool(values.cast(pl.String).str.to_lowercase().is_in(list(PARTS)).all())
    return not values.cast(pl.Float64, strict=False).has_nulls() if values.dtype == pl.String else values.dtype.is_numeric()


def _collect(source: Source, roles: dict[str, str], told: Clock | None, whole_elsewhere: set[str]) -> pl.DataFrame:
    """Parse all columns in one pass; a second one where ids that looked like whole numbers are none."""
    whole_ids = {side for side in whole_elsewhere if may_be_whole(source.schema[roles[side]], source.has_types)}
    while True:
        columns = _columns(source, roles, told, whole_ids)
        frame = source.collect(lambda rows: not_blank(source, rows).select(**columns))  # noqa: B023 - called at once
        lost = {side for side in whole_ids if frame[f"{side}{LOST}"].any()}
        if not lost:
            return frame
        whole_ids -= lost


def _columns(source: Source, roles: dict[str, str], told: Clock | None, whole_ids: set[str]) -> dict[str, pl.Expr]:
    columns = {}
    for side in ("user", "item"):
        raw = pl.col(roles[side])
        columns[side] = raw.cast(pl.String)
        if side in whole_ids:
            columns[side], columns[f"{side}{LOST}"] = whole(raw, source.schema[roles[side]])
        elif source.has_types:
            columns[side] = pl.when(columns[side] != "").then(columns[side])
    if told:
        columns["time"] = told.parse
        columns[f"time{LOST}"] = told.parse.is_null() & pl.col(roles["time"]).is_not_null()
    if "value" in roles:
        columns["value"] = pl.col(roles["value"]).cast(pl.Float64, strict=False)
        columns[f"value{LOST}"] = columns["value"].is_null() & pl.col(roles["value"]).is_not_null()
    if "behaviour" in roles:
        columns["behaviour"] = pl.col(roles["behaviour"]).cast(pl.String).cast(pl.Categorical)
    if "part" in roles:
        name = pl.col(roles["part"]).cast(pl.String).str.to_lowercase()
        columns["part"] = name.replace_strict(PARTS, default=None, return_dtype=pl.Int8)
        columns[f"part{LOST}"] = columns["part"].is_null()
    return columns


def _keep_behaviours(
    source: Source, roles: dict[str, str], frame: pl.DataFrame, wanted: list[str] | None
) -> tuple[pl.DataFrame, tuple[str, ...], list[str]]:
    """The rows of the wanted behaviours, as indices if there are several; None takes all alike."""
    if "behaviour" not in roles:
        raise UserError(
            f"data.reader.behaviours={wanted}: {source.path} has no column of behaviours; set data.reader.columns.behaviour"
        )
    counts = frame["behaviour"].value_counts(sort=True).drop_nulls()
    names = counts["behaviour"].cast(pl.String).to_list()
    if wanted is None:
        shares = ", ".join(f"{name} {count / len(frame):.1%}" for name, count in zip(names[:6], counts["count"], strict=False))
        said = [
            f"{roles['behaviour']} holds {shares}: all count alike; data.reader.behaviours=[{names[0]}] keeps one, and a list of "
            "several keeps them apart"
        ]
        return frame.drop("behaviour"), (), said if len(names) > 1 else []
    if unknown := [name for name in wanted if name not in names]:
        listed = ", ".join(clip(name, 30) for name in names[:8])
        raise UserError(
            f"data.reader.behaviours: no row of {source.path} has the {roles['behaviour']} {unknown[0]}; there are {listed}"
        )
    if len(wanted) > MAX_BEHAVIOURS:
        raise UserError(f"data.reader.behaviours names {len(wanted)} behaviours: at most {MAX_BEHAVIOURS} can be kept apart")
    index = pl.col("behaviour").cast(pl.String).replace_strict(wanted, range(len(wanted)), default=None, return_dtype=pl.UInt8)
    frame = frame.with_columns(behaviour=index).filter(pl.col("behaviour").is_not_null())
    return (frame, tuple(wanted), []) if len(wanted) > 1 else (frame.drop("behaviour"), (), [])


def _refuse_lost_values(source: Source, column: str, role: str, lost: pl.Series, times: str) -> None:
    if not lost.any():
        return
    where, value = source.locate(lambda rows: not_blank(source, rows), lost.arg_max() or 0, column)
    cure = {
        "time": f"no time like the first rows' ({times}): mend it, or drop such rows, data.reader.drop_incomplete=true",
        "value": "no number: mend it, or set data.reader.columns.value to another column",
        "part": "none of train, val and test: mend it, or set data.reader.columns.part to another column",
    }
    raise UserError(f"{where}: {column} {clip(str(value), 40)!r} ({lost.sum():,} in all) is {cure[role]}")


def _refuse_gap(source: Source, passing: Callable[[pl.LazyFrame], pl.LazyFrame], role: str, values: pl.Series) -> None:
    missing = values.is_null()
    if missing.any():
        where, _ = source.locate(passing, missing.arg_max() or 0)
        raise UserError(
            f"{where} has no {role} ({missing.sum():,} in all): fill the gap, or drop such rows, data.reader.drop_incomplete=true"
        )
