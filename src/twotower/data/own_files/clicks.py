"""Read the user's table of interactions into compact columns."""

from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from twotower.data.frames import TimeUnit
from twotower.data.own_files.files import FILE, LINE, Source
from twotower.data.own_files.times import Clock, clocks
from twotower.data.own_files.values import (
    NOT_AN_ID,
    Reading,
    as_text,
    id_readings,
    numbers,
)
from twotower.data.prepare.context import PREFIX
from twotower.errors import UserError
from twotower.wording import clip

PARTS = {"train": 0, "training": 0, "0": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "1": 1}
PARTS |= {"test": 2, "testing": 2, "2": 2}
LOST = "_lost"  # ends the names of columns that mark the values which a reading would lose
LOST_VALUES = {
    "user": NOT_AN_ID,
    "item": NOT_AN_ID,
    "time": "not a time like the first rows' ({meaning}): mend it, or drop such rows, "
    "data.reader.drop_incomplete=true",
    "value": "not a number: mend it, or add it to data.reader.missing",
    "weight": "not a number: mend it",
    "part": "none of train, val and test: mend it",
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
        source: its files.
        roles: columns of ``user``, ``item`` and, where there are any, ``time``, ``value``,
            ``behaviour``, ``weight``, ``shown``, ``part``.
        wishes: what the user states.
        whole_elsewhere: whether the other tables' ids of ``user`` and ``item`` are whole numbers.

    Raises:
        UserError: for files that cannot be read, and values that are missing or of the wrong type.
    """
    times: list[Clock] = []
    if "time" in roles:
        known = source.known(roles["time"])
        times = clocks(source.path, known, wishes.time_unit, wishes.time_format)
    frame, chosen = _read(source, _readings(source, roles, times, whole_elsewhere))
    clock = next((clock for clock in times if clock.reading is chosen["time"]), None)
    meaning = _refuse_lost(source, roles, frame, chosen, clock, wishes.drop_incomplete)
    frame = frame.select(*chosen)
    # the same rows with their places, to name the line of one
    rows = source.frame.select(
        FILE, LINE, **{role: reading.values for role, reading in chosen.items()}
    )
    if wishes.behaviours is not None:
        _check_behaviours(source, roles, frame, wishes.behaviours)
    frame, rows, dropped = _keep(source, roles, frame, rows, wishes)
    remarks = _behaviours(roles, frame) if wishes.behaviours is None else []
    if clock is None:
        frame = frame.with_columns(time=pl.int_range(pl.len(), dtype=pl.Int64))
        if wishes.time_unit is None:
            remarks.append(
                f"{source.name} has no column of times, so each user's order is that of the file; "
                "if the whole file is one log in order of time, set data.reader.time_unit=step"
            )
    apart = tuple(wishes.behaviours or ()) if len(wishes.behaviours or ()) > 1 else ()
    return Clicks(
        _compact(frame, apart),
        clock.unit if clock else wishes.time_unit or "order",
        meaning,
        apart,
        dropped,
        remarks,
        chosen["item"],
        lambda row: source.place(rows.slice(row, 1)),
    )


def _readings(
    source: Source, roles: dict[str, str], times: list[Clock], whole_elsewhere: dict[str, bool]
) -> dict[str, list[Reading]]:
    """How the column of each role can be read, the most compact way first."""
    readings = {
        side: id_readings(roles[side], source.schema[roles[side]], whole_elsewhere[side])
        for side in ("user", "item")
    }
    if times:
        readings["time"] = [clock.reading for clock in times]
    raw = {role: pl.col(name) for role, name in roles.items()}
    for role in {"value", "weight"} & roles.keys():
        value = numbers(raw[role], source.known(roles[role]))
        readings[role] = [Reading(value, raw[role].is_not_null() & value.is_null())]
    if "behaviour" in roles:
        name = as_text(raw["behaviour"]).cast(pl.Categorical)
        readings["behaviour"] = [Reading(name, pl.lit(False))]
    for role in roles:
        if role.startswith(PREFIX) or role == "shown":
            readings[role] = [Reading(raw[role], pl.lit(False))]
    if "part" in roles:
        text = as_text(raw["part"]).str.to_lowercase()
        part = text.replace_strict(PARTS, default=None, return_dtype=pl.Int8)
        readings["part"] = [Reading(part, part.is_null())]
    return readings


def _read(
    source: Source, readings: dict[str, list[Reading]]
) -> tuple[pl.DataFrame, dict[str, Reading]]:
    """Read all columns in one pass; in a second one, if the first reading of a column loses values.

    Returns:
        A column of values for each role, and one that marks what is lost; the readings.
    """
    chosen = {role: several[0] for role, several in readings.items()}
    frame = _collect(source, chosen)
    for role, several in readings.items():
        if frame[f"{role}{LOST}"].any():
            chosen[role] = several[-1]
    if any(chosen[role] is not several[0] for role, several in readings.items()):
        frame = _collect(source, chosen)
    return frame, chosen


def _collect(source: Source, chosen: dict[str, Reading]) -> pl.DataFrame:
    values = {role: reading.values for role, reading in chosen.items()}
    lost = {f"{role}{LOST}": reading.lost for role, reading in chosen.items()}
    return source.collect(source.frame.select(**values, **lost))


def _refuse_lost(
    source: Source,
    roles: dict[str, str],
    frame: pl.DataFrame,
    chosen: dict[str, Reading],
    clock: Clock | None,
    drop_incomplete: bool,
) -> dict[str, str]:
    """Refuse values that would be lost, and say what is known of each column, by role."""
    meaning = {}
    for role, reading in chosen.items():
        lost = frame[f"{role}{LOST}"]
        words = [clock.meaning] if clock and role == "time" else []
        if lost.any() and not (role == "time" and drop_incomplete):
            what = LOST_VALUES[role].format(meaning=", ".join(words))
            other = f"set data.reader.columns.{role} to another column"
            source.refuse(roles[role], reading.lost, f"{what}, or {other}")
        if num_missing := frame[role].null_count() - lost.sum():
            words.append(f"{num_missing:,} missing")
        meaning[role] = ", ".join(words)
    return meaning


def _keep(
    source: Source,
    roles: dict[str, str],
    frame: pl.DataFrame,
    rows: pl.LazyFrame,
    wishes: Wishes,
) -> tuple[pl.DataFrame, pl.LazyFrame, dict[str, int]]:
    """Drop the rows that the user does not want, and refuse gaps in the others.

    Returns:
        The rest of ``frame`` and of ``rows``, the same rows with their places; how many rows were
        dropped, by reason.
    """
    needed = [role for role in ("user", "item", "time", "weight") if role in roles]
    filters = {}
    if wishes.behaviours is not None:
        reason = f"behaviours other than {', '.join(wishes.behaviours)}"
        filters[reason] = pl.col("behaviour").cast(pl.String).is_in(wishes.behaviours)
    if wishes.drop_incomplete:
        reason = f"rows without {', '.join(needed[:-1])} or {needed[-1]}"
        filters[reason] = pl.all_horizontal(pl.col(needed).is_not_null())
    dropped = {}
    for reason, is_kept in filters.items():
        num_rows = len(frame)
        frame, rows = frame.filter(is_kept), rows.filter(is_kept)
        if len(frame) < num_rows:
            dropped[reason] = num_rows - len(frame)
    for role in needed:
        if num := frame[role].null_count():
            raise UserError(
                f"{source.place(rows.filter(pl.col(role).is_null()))} has no {role} ({num:,} in "
                "all): fill the gap, or drop such rows, data.reader.drop_incomplete=true"
            )
    return frame, rows, dropped


def _behaviours(roles: dict[str, str], frame: pl.DataFrame) -> list[str]:
    """The remark where several behaviours count alike."""
    if "behaviour" not in roles:
        return []
    counts = frame["behaviour"].value_counts(sort=True).drop_nulls()
    if len(counts) < 2:
        return []
    shares = [f"{name} {count / len(frame):.1%}" for name, count in counts.head(6).iter_rows()]
    return [
        f"{roles['behaviour']} holds {', '.join(shares)}: all count alike; "
        f"data.reader.behaviours=[{counts[0, 0]}] keeps one, and a list of several keeps them apart"
    ]


def _check_behaviours(
    source: Source, roles: dict[str, str], frame: pl.DataFrame, wanted: list[str]
) -> None:
    if "behaviour" not in roles:
        raise UserError(
            f"data.reader.behaviours={wanted}: {source.path} has no column of behaviours; set "
            "data.reader.columns.behaviour"
        )
    counts = frame["behaviour"].cast(pl.String).value_counts(sort=True).drop_nulls()
    names = counts["behaviour"].to_list()
    for name in wanted:
        if name not in names:
            listed = ", ".join(clip(known, 30) for known in names[:8]) or "none"
            raise UserError(
                f"data.reader.behaviours: no row of {source.path} has the {roles['behaviour']} "
                f"{name}; there are {listed}"
            )


def _compact(frame: pl.DataFrame, apart: tuple[str, ...]) -> pl.DataFrame:
    """Behaviours as places in ``apart``, or dropped; ids in 32 bits where all fit."""
    if apart:
        place = pl.col("behaviour").cast(pl.String)
        place = place.replace_strict(list(apart), range(len(apart)), return_dtype=pl.UInt8)
        frame = frame.with_columns(behaviour=place)
    else:
        frame = frame.drop("behaviour", strict=False)
    for side in ("user", "item"):
        if frame[side].dtype == pl.Int64:
            small = frame[side].cast(pl.Int32, strict=False)
            frame = frame if small.has_nulls() else frame.with_columns(small)
    return frame
