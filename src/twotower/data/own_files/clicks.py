"""The user's table of interactions: compact columns, and each surprise named with its line."""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import polars as pl

from twotower.data.frames import TimeUnit
from twotower.data.own_files.errors import clip
from twotower.data.own_files.files import Source, not_blank
from twotower.data.own_files.plain import known
from twotower.data.own_files.readings import LOST, num_missing_of, read
from twotower.data.own_files.times import Clock, clocks, coarsen
from twotower.data.own_files.values import (
    NESTED,
    Reading,
    as_text,
    compact,
    id_readings,
    is_made_decimal,
    made_whole,
    numbers,
)
from twotower.data.readers.categories import most_frequent
from twotower.errors import UserError

PARTS = {"train": 0, "training": 0, "0": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "1": 1}
PARTS |= {"test": 2, "testing": 2, "2": 2}
INCOMPLETE = "rows without user, item or time"
MAX_BEHAVIOURS = 255
LONG = 17  # digits that tell all floats apart


class Wishes(NamedTuple):
    """What the user states; see :class:`~twotower.data.readers.table.Table`."""

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
        item: how the ids of items were read.
        where: file and line of a row of ``frame``.
    """

    frame: pl.DataFrame
    time_unit: TimeUnit
    meaning: dict[str, str]
    behaviours: tuple[str, ...]
    dropped: dict[str, int]
    remarks: list[str]
    item: Reading
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
    told: list[Clock] = []
    if "time" in roles:
        told = clocks(source.path, known(source, roles["time"]), wishes.time_unit, wishes.time_format)
    readings = _readings(source, roles, told, whole_elsewhere)
    frame, chosen = read(source, readings)
    num_missing = {role: num_missing_of(frame, role) for role in roles if role in frame}
    meaning = {role: _meaning(chosen[role], num) for role, num in num_missing.items()}
    for role in readings:
        if not (role == "time" and wishes.drop_incomplete):
            _refuse_lost_values(source, roles[role], role, frame[f"{role}{LOST}"], chosen[role].meaning)
    frame = frame.select(column for column in frame.columns if not column.endswith(LOST))
    kept = [pl.lit(True)]
    dropped: dict[str, int] = {}
    behaviours: tuple[str, ...] = ()
    remarks: list[str] = []
    if wishes.behaviours is not None or "behaviour" in roles:
        before = len(frame)
        frame, behaviours, said = _keep_behaviours(source, roles, frame, wishes.behaviours)
        remarks += said
        if wishes.behaviours is not None:
            kept.append(chosen["behaviour"].values.cast(pl.String).is_in(wishes.behaviours))
            dropped[f"behaviours other than {', '.join(wishes.behaviours)}"] = before - len(frame)
    needed = [role for role in ("user", "item", "time") if role in roles]
    if wishes.drop_incomplete:
        before = len(frame)
        frame = frame.drop_nulls(needed)
        kept += [chosen[role].values.is_not_null() for role in needed]
        dropped[INCOMPLETE] = before - len(frame)

    def passing(rows: pl.LazyFrame) -> pl.LazyFrame:
        return not_blank(source, rows).filter(pl.all_horizontal(kept))

    for role in needed:
        _refuse_gap(source, passing, role, frame[role])
    unit = wishes.time_unit or "order"
    if told:
        clock = next(clock for clock in told if clock.reading is chosen["time"])
        if frame["time"].dtype.is_float():
            _refuse_ties(source, roles["time"], clock.reading)
        times, unit = coarsen(frame["time"], clock)
        frame = frame.with_columns(time=times)
    else:
        frame = frame.with_columns(time=pl.int_range(pl.len(), dtype=pl.Int64))
        remarks.append(
            f"{source.name} has no column of times, so each user's order is that of the file; if the whole file is one log "
            "in order of time, data.reader.time_unit=step says so"
        )
    frame = frame.with_columns(compact(frame[side]) for side in ("user", "item"))
    dropped = {reason: count for reason, count in dropped.items() if count}
    return Clicks(frame, unit, meaning, behaviours, dropped, remarks, chosen["item"], lambda row: source.locate(passing, row)[0])


def item_categories(source: Source, roles: dict[str, str], item: Reading, id_type: pl.DataType) -> tuple[pl.DataFrame, int]:
    """The category of each item among the interactions; each value of a list counts.

    Args:
        source: the interactions.
        roles: their columns.
        item: how the ids of items are read.
        id_type: what they become.

    Returns:
        ``item`` and its most frequent ``category`` (ties to the first in the alphabet); how many items have several.
    """
    name = roles["category"]
    dtype = source.schema[name]
    raw = pl.col(name)
    category = raw.cast(pl.List(pl.String)) if isinstance(dtype, pl.List) else as_text(raw, dtype)

    def count(rows: pl.LazyFrame) -> pl.LazyFrame:
        pairs = rows.select(item=item.values.cast(id_type), category=category)
        if isinstance(dtype, pl.List):
            pairs = pairs.explode("category")
        return pairs.drop_nulls().group_by("item", "category").len()

    pairs = source.collect(count)
    nested = pairs["category"].filter(pairs["category"].str.contains(NESTED))
    if len(nested):
        raise UserError(
            f"{source.path} column {name}: {clip(nested[0], 40)!r} is no category: mend it, or set "
            "data.reader.columns.category to another column"
        )
    if is_made_decimal(pairs["category"]):
        pairs = pairs.with_columns(made_whole(pl.col("category")))
    return most_frequent(pairs.group_by("item", "category").agg(num=pl.col("len").sum()))


def makes_sense(role: str, head: pl.Series) -> bool:
    """Does a column that only its name makes a ``value`` or a ``part`` hold such values?"""
    values = head.drop_nulls()
    table = values.to_frame("it")
    if role == "part":
        names = table.select(as_text(pl.col("it"), values.dtype).str.to_lowercase()).to_series()
        return len(values) > 0 and bool(names.is_in(list(PARTS)).all())
    return not table.select(numbers(values, pl.col("it"))).to_series().has_nulls()


def _readings(
    source: Source, roles: dict[str, str], told: list[Clock], whole_elsewhere: dict[str, bool]
) -> dict[str, list[Reading]]:
    """How the column of each role can be read, the most compact way first."""
    readings = {}
    for side in ("user", "item"):
        column = known(source, roles[side])
        readings[side] = id_readings(column, whole_elsewhere[side], may_be_nested=source.is_json)
    if told:
        readings["time"] = [clock.reading for clock in told]
    raw = {role: pl.col(column) for role, column in roles.items()}
    if "value" in roles:
        value = numbers(known(source, roles["value"]), raw["value"])
        readings["value"] = [Reading(value, raw["value"].is_not_null() & value.is_null())]
    if "behaviour" in roles:
        name = as_text(raw["behaviour"], source.schema[roles["behaviour"]])
        readings["behaviour"] = [Reading(name.cast(pl.Categorical), pl.lit(False))]
    if "part" in roles:
        name = as_text(raw["part"], source.schema[roles["part"]]).str.to_lowercase()
        part = name.replace_strict(PARTS, default=None, return_dtype=pl.Int8)
        readings["part"] = [Reading(part, part.is_null())]
    return readings


def _meaning(reading: Reading, num_missing: int) -> str:
    missing = f"{num_missing:,} missing" if num_missing else ""
    return ", ".join(filter(None, (reading.meaning, missing)))


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
    if wanted is None and not names:
        return frame.drop("behaviour"), (), []
    if wanted is None:
        shares = ", ".join(f"{name} {count / len(frame):.1%}" for name, count in zip(names[:6], counts["count"], strict=False))
        said = [
            f"{roles['behaviour']} holds {shares}: all count alike; data.reader.behaviours=[{names[0]}] keeps one, and a list of "
            "several keeps them apart"
        ]
        return frame.drop("behaviour"), (), said if len(names) > 1 else []
    if unknown := [name for name in wanted if name not in names]:
        listed = ", ".join(clip(name, 30) for name in names[:8]) or "none"
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
    other = f"set data.reader.columns.{role} to another column"
    cure = {
        "user": f"no id that can be kept: write ids as whole numbers or text, or {other}",
        "item": f"no id that can be kept: write ids as whole numbers or text, or {other}",
        "time": f"no time like the first rows' ({times}): mend it, or drop such rows, data.reader.drop_incomplete=true",
        "value": f"no number: mend it, add it to data.reader.missing, or {other}",
        "part": f"none of train, val and test: mend it, or {other}",
    }
    raise UserError(f"{where}: {column} {clip(str(value), 40)!r} ({lost.sum():,} in all) is {cure[role]}")


def _refuse_ties(source: Source, column: str, reading: Reading) -> None:
    """Refuse different times that one number stands for, because they have more digits than it holds."""
    if source.schema[column] != pl.String:
        return
    is_long = pl.col(column).str.len_chars() > LONG
    if source.collect(lambda rows: rows.select(column).filter(is_long).head(1)).is_empty():
        return
    pairs = source.collect(lambda rows: rows.select(text=column, number=reading.values).unique()).unique()
    equal = pairs.drop_nulls().group_by("number").agg("text").filter(pl.col("text").list.len() > 1)
    for texts in equal["text"].to_list():
        values = {Decimal(text.replace(",", ".")): text for text in texts}
        if len(values) > 1:
            one, two = list(values.values())[:2]
            raise UserError(
                f"{source.path} column {column}: {clip(one, 40)!r} and {clip(two, 40)!r} have more digits than can be told "
                "apart: write them as whole numbers of a smaller unit, or set data.reader.columns.time to another column"
            )


def _refuse_gap(source: Source, passing: Callable[[pl.LazyFrame], pl.LazyFrame], role: str, values: pl.Series) -> None:
    missing = values.is_null()
    if missing.any():
        where, _ = source.locate(passing, missing.arg_max() or 0)
        raise UserError(
            f"{where} has no {role} ({missing.sum():,} in all): fill the gap, or drop such rows, data.reader.drop_incomplete=true"
        )
