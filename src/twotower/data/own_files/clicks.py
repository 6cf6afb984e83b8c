"""The user's table of interactions: compact columns, and each surprise named with its line."""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import polars as pl

from twotower.data.frames import TimeUnit
from twotower.data.own_files.errors import clip
from twotower.data.own_files.files import Source
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
LOST = "_lost"  # ends the names of columns that mark the values which a reading would lose
ID = "no id that can be kept: write ids as whole numbers or text"
OTHER_COLUMN = "set data.reader.columns.{role} to another column"
LOST_VALUES = {
    "user": f"{ID}, or {OTHER_COLUMN}",
    "item": f"{ID}, or {OTHER_COLUMN}",
    "time": "no time like the first rows' ({meaning}): mend it, or drop such rows, data.reader.drop_incomplete=true",
    "value": f"no number: mend it, add it to data.reader.missing, or {OTHER_COLUMN}",
    "part": f"none of train, val and test: mend it, or {OTHER_COLUMN}",
    "behaviour": "",  # any text is one
}


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


def read_clicks(
    source: Source, roles: dict[str, str], wishes: Wishes, whole_elsewhere: dict[str, bool]
) -> Clicks:
    """Read the interactions.

    Args:
        source: its files, with plain columns.
        roles: columns of ``user``, ``item`` and, where there are any, ``time``, ``value``, ``behaviour``, ``part``.
        wishes: what the user states.
        whole_elsewhere: whether the other tables' ids of ``user`` and ``item`` are whole numbers.

    Raises:
        UserError: for files that cannot be read, and values that are missing or of the wrong type.
    """
    told: list[Clock] = []
    if "time" in roles:
        told = clocks(
            source.path, source.known(roles["time"]), wishes.time_unit, wishes.time_format
        )
    frame, chosen = _read(source, _readings(source, roles, told, whole_elsewhere))
    meaning = {}
    for role, reading in chosen.items():
        lost = frame[f"{role}{LOST}"]
        if not (role == "time" and wishes.drop_incomplete):
            source.refuse(
                roles[role], lost, LOST_VALUES[role].format(role=role, meaning=reading.meaning)
            )
        num_missing = frame[role].null_count() - lost.sum()
        meaning[role] = ", ".join(
            filter(None, (reading.meaning, f"{num_missing:,} missing" if num_missing else ""))
        )
    frame = frame.select(*chosen)
    kept = pl.lit(True)
    dropped: dict[str, int] = {}
    remarks: list[str] = []
    wanted = wishes.behaviours
    if wanted is not None:
        num_rows = len(frame)
        frame = _keep_behaviours(source, roles, frame, wanted)
        kept &= chosen["behaviour"].values.cast(pl.String).is_in(wanted)
        dropped[f"behaviours other than {', '.join(wanted)}"] = num_rows - len(frame)
    elif "behaviour" in roles:
        remarks += _behaviours(roles["behaviour"], frame["behaviour"])
    needed = [role for role in ("user", "item", "time") if role in roles]
    if wishes.drop_incomplete:
        num_rows = len(frame)
        frame = frame.drop_nulls(needed)
        kept &= pl.all_horizontal(chosen[role].values.is_not_null() for role in needed)
        dropped[INCOMPLETE] = num_rows - len(frame)
    for role in needed:
        source.refuse_gap(
            role,
            frame[role],
            "fill the gap, or drop such rows, data.reader.drop_incomplete=true",
            kept,
        )
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
    apart = tuple(wanted) if wanted and len(wanted) > 1 else ()
    frame = frame.drop([] if apart else "behaviour", strict=False).with_columns(
        compact(frame[side]) for side in ("user", "item")
    )
    dropped = {reason: count for reason, count in dropped.items() if count}
    return Clicks(
        frame,
        unit,
        meaning,
        apart,
        dropped,
        remarks,
        chosen["item"],
        lambda row: source.locate(row, kept=kept)[0],
    )


def item_categories(
    source: Source, roles: dict[str, str], item: Reading, id_type: pl.DataType
) -> tuple[pl.DataFrame, int]:
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
    raw = pl.col(head.name)
    if role == "part":
        return (
            len(values) > 0
            and not values.to_frame().select(_part(raw, values.dtype)).to_series().has_nulls()
        )
    return not values.to_frame().select(numbers(values, raw)).to_series().has_nulls()


def _readings(
    source: Source, roles: dict[str, str], told: list[Clock], whole_elsewhere: dict[str, bool]
) -> dict[str, list[Reading]]:
    """How the column of each role can be read, the most compact way first."""
    readings = {}
    for side in ("user", "item"):
        readings[side] = id_readings(
            source.known(roles[side]), whole_elsewhere[side], source.is_json
        )
    if told:
        readings["time"] = [clock.reading for clock in told]
    if "value" in roles:
        raw = pl.col(roles["value"])
        value = numbers(source.known(roles["value"]), raw)
        readings["value"] = [Reading(value, raw.is_not_null() & value.is_null())]
    if "behaviour" in roles:
        name = as_text(pl.col(roles["behaviour"]), source.schema[roles["behaviour"]])
        readings["behaviour"] = [Reading(name.cast(pl.Categorical), pl.lit(False))]
    if "part" in roles:
        part = _part(pl.col(roles["part"]), source.schema[roles["part"]])
        readings["part"] = [Reading(part, part.is_null())]
    return readings


def _part(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return (
        as_text(raw, dtype)
        .str.to_lowercase()
        .replace_strict(PARTS, default=None, return_dtype=pl.Int8)
    )


def _read(
    source: Source, readings: dict[str, list[Reading]]
) -> tuple[pl.DataFrame, dict[str, Reading]]:
    """All columns in one pass, each in the first of its readings that loses the fewest values.

    Nearly always it is the first one; where that loses any, more passes are needed.

    Returns:
        A column of values for each role, and one that marks what is lost; the readings.
    """
    chosen = {role: several[0] for role, several in readings.items()}
    frame = _collect(source, chosen)
    doubtful = [
        role
        for role, several in readings.items()
        if len(several) > 1 and frame[f"{role}{LOST}"].any()
    ]
    if not doubtful:
        return frame, chosen
    for role in doubtful:
        lost = [
            reading.lost.sum().alias(str(place)) for place, reading in enumerate(readings[role])
        ]
        num_lost = source.collect(lambda rows, lost=lost: rows.select(lost)).sum().row(0)  # type: ignore[misc]
        chosen[role] = readings[role][num_lost.index(min(num_lost))]
    return _collect(source, chosen), chosen


def _collect(source: Source, chosen: dict[str, Reading]) -> pl.DataFrame:
    values = {role: reading.values for role, reading in chosen.items()}
    lost = {f"{role}{LOST}": reading.lost for role, reading in chosen.items()}
    return source.collect(lambda rows: rows.select(**values, **lost))


def _behaviours(column: str, behaviours: pl.Series) -> list[str]:
    """What is said where all behaviours count alike."""
    counts = behaviours.value_counts(sort=True).drop_nulls()
    if len(counts) < 2:
        return []
    shares = ", ".join(
        f"{name} {count / len(behaviours):.1%}" for name, count in counts.head(6).iter_rows()
    )
    return [
        f"{column} holds {shares}: all count alike; data.reader.behaviours=[{counts[0, 0]}] keeps one, and a list of "
        "several keeps them apart"
    ]


def _keep_behaviours(
    source: Source, roles: dict[str, str], frame: pl.DataFrame, wanted: list[str]
) -> pl.DataFrame:
    """The rows of the wanted behaviours, which become their places among these."""
    if "behaviour" not in roles:
        raise UserError(
            f"data.reader.behaviours={wanted}: {source.path} has no column of behaviours; set data.reader.columns.behaviour"
        )
    if len(wanted) > MAX_BEHAVIOURS:
        raise UserError(
            f"data.reader.behaviours names {len(wanted)} behaviours: at most {MAX_BEHAVIOURS} can be kept apart"
        )
    names = (
        frame["behaviour"]
        .value_counts(sort=True)["behaviour"]
        .drop_nulls()
        .cast(pl.String)
        .to_list()
    )
    if unknown := [name for name in wanted if name not in names]:
        listed = ", ".join(clip(name, 30) for name in names[:8]) or "none"
        raise UserError(
            f"data.reader.behaviours: no row of {source.path} has the {roles['behaviour']} {unknown[0]}; there are {listed}"
        )
    place = (
        pl.col("behaviour")
        .cast(pl.String)
        .replace_strict(wanted, range(len(wanted)), default=None, return_dtype=pl.UInt8)
    )
    return frame.with_columns(behaviour=place).filter(pl.col("behaviour").is_not_null())


def _refuse_ties(source: Source, column: str, reading: Reading) -> None:
    """Refuse different times that one number stands for, because they have more digits than it holds."""
    if source.schema[column] != pl.String:
        return
    is_long = pl.col(column).str.len_chars() > LONG
    long = source.collect(
        lambda rows: rows.filter(is_long).select(text=column, number=reading.values)
    )
    equal = (
        long.drop_nulls()
        .group_by("number")
        .agg(pl.col("text").unique())
        .filter(pl.col("text").list.len() > 1)
    )
    for texts in equal["text"].to_list():
        values = {Decimal(text.replace(",", ".")): text for text in texts}
        if len(values) > 1:
            one, two = list(values.values())[:2]
            raise UserError(
                f"{source.path} column {column}: {clip(one, 40)!r} and {clip(two, 40)!r} have more digits than can be told "
                "apart: write them as whole numbers of a smaller unit, or set data.reader.columns.time to another column"
            )
