"""Read the user's table of interactions into compact columns."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from twotower.data.frames import TimeUnit
from twotower.data.own_files.behaviours import check_behaviours, count_alike
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
        frame: as in :class:`~twotower.data.frames.Frames`, in memory or in a file.
        num_rows: of it.
        time_unit: of its times.
        meaning: of its columns, for people, by role.
        behaviours: names of those that are kept apart.
        dropped: rows left out, by reason.
        remarks: what the user should know.
        item: how the ids of items were read.
        where: file and line of a row of ``frame``.
    """

    frame: pl.LazyFrame
    num_rows: int
    time_unit: TimeUnit
    meaning: dict[str, str]
    behaviours: tuple[str, ...]
    dropped: dict[str, int]
    remarks: list[str]
    item: Reading
    where: Callable[[int], str]


def read_clicks(
    source: Source,
    roles: dict[str, str],
    wishes: Wishes,
    whole_elsewhere: dict[str, bool],
    path: Path | None = None,
) -> Clicks:
    """Read the interactions.

    Args:
        source: its files.
        roles: columns of ``user``, ``item`` and, where there are any, ``time``, ``value``,
            ``behaviour``, ``weight``, ``shown``, ``part``.
        wishes: what the user states.
        whole_elsewhere: whether the other tables' ids of ``user`` and ``item`` are whole numbers.
        path: file for the interactions; None: in memory.

    Raises:
        UserError: for files that cannot be read, and values that are missing or of the wrong type.
    """
    times: list[Clock] = []
    if "time" in roles:
        known = source.known(roles["time"])
        times = clocks(source.path, known, wishes.time_unit, wishes.time_format)
    several = _readings(source, roles, times, whole_elsewhere)
    frame, chosen, facts = _read(source, several, path)
    clock = next((clock for clock in times if clock.reading is chosen["time"]), None)
    meaning = _refuse_lost(source, roles, facts, chosen, clock, wishes.drop_incomplete)
    frame = frame.select(*chosen)
    # the same rows with their places, to name the line of one
    rows = source.frame.select(
        FILE, LINE, **{role: reading.values for role, reading in chosen.items()}
    )
    if wishes.behaviours is not None:
        check_behaviours(source, roles, frame, wishes.behaviours)
    frame, rows, num_rows, dropped = _keep(source, roles, frame, rows, facts, wishes)
    remarks = count_alike(roles, frame, num_rows) if wishes.behaviours is None else []
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
        num_rows,
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
    source: Source, readings: dict[str, list[Reading]], path: Path | None
) -> tuple[pl.LazyFrame, dict[str, Reading], dict[str, int]]:
    """Read all columns in one pass; in a second one, if the first reading of a column loses values.

    Returns:
        A column of values for each role, and one that marks what is lost; the readings; ``rows``,
        and of each column how many are missing or lost.
    """
    chosen = {role: several[0] for role, several in readings.items()}
    frame, facts = _collect(source, chosen, path)
    for role, several in readings.items():
        if facts[f"{role}{LOST}"]:
            chosen[role] = several[-1]
    if any(chosen[role] is not several[0] for role, several in readings.items()):
        frame, facts = _collect(source, chosen, path)
    return frame, chosen, facts


def _collect(
    source: Source, chosen: dict[str, Reading], path: Path | None
) -> tuple[pl.LazyFrame, dict[str, int]]:
    values = {role: reading.values for role, reading in chosen.items()}
    lost = {f"{role}{LOST}": reading.lost for role, reading in chosen.items()}
    rows = source.frame.select(**values, **lost)
    frame = source.write(rows, path) if path else source.collect(rows).lazy()
    counted = frame.select(
        pl.len().alias("rows"), pl.col(*values).null_count(), pl.col(*lost).sum()
    )
    return frame, counted.collect(engine="streaming").row(0, named=True)


def _refuse_lost(
    source: Source,
    roles: dict[str, str],
    facts: dict[str, int],
    chosen: dict[str, Reading],
    clock: Clock | None,
    drop_incomplete: bool,
) -> dict[str, str]:
    """Refuse values that would be lost, and say what is known of each column, by role."""
    meaning = {}
    for role, reading in chosen.items():
        lost = facts[f"{role}{LOST}"]
        words = [clock.meaning] if clock and role == "time" else []
        if lost and not (role == "time" and drop_incomplete):
            what = LOST_VALUES[role].format(meaning=", ".join(words))
            other = f"set data.reader.columns.{role} to another column"
            source.refuse(roles[role], reading.lost, f"{what}, or {other}")
        if num_missing := facts[role] - lost:
            words.append(f"{num_missing:,} missing")
        meaning[role] = ", ".join(words)
    return meaning


def _keep(
    source: Source,
    roles: dict[str, str],
    frame: pl.LazyFrame,
    rows: pl.LazyFrame,
    facts: dict[str, int],
    wishes: Wishes,
) -> tuple[pl.LazyFrame, pl.LazyFrame, int, dict[str, int]]:
    """Drop the rows that the user does not want, and refuse gaps in the others.

    Returns:
        The rest of ``frame`` and of ``rows``, the same rows with their places; how many are left,
        and how many were dropped, by reason.
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
        num_rows = facts["rows"]
        frame, rows = frame.filter(is_kept), rows.filter(is_kept)
        counted = frame.select(pl.len().alias("rows"), pl.col(*needed).null_count())
        facts = counted.collect(engine="streaming").row(0, named=True)
        if facts["rows"] < num_rows:
            dropped[reason] = num_rows - facts["rows"]
    for role in needed:
        if num := facts[role]:
            raise UserError(
                f"{source.place(rows.filter(pl.col(role).is_null()))} has no {role} ({num:,} in "
                "all): fill the gap, or drop such rows, data.reader.drop_incomplete=true"
            )
    return frame, rows, facts["rows"], dropped


def _compact(frame: pl.LazyFrame, apart: tuple[str, ...]) -> pl.LazyFrame:
    """Behaviours as places in ``apart``, or dropped; ids in 32 bits where all fit."""
    if apart:
        place = pl.col("behaviour").cast(pl.String)
        place = place.replace_strict(list(apart), range(len(apart)), return_dtype=pl.UInt8)
        frame = frame.with_columns(behaviour=place)
    else:
        frame = frame.drop("behaviour", strict=False)
    types = frame.collect_schema()
    for side in ("user", "item"):
        if types[side] == pl.Int64:
            ends = frame.select(pl.col(side).min().alias("min"), pl.col(side).max().alias("max"))
            least, most = ends.collect(engine="streaming").row(0)
            if least is None or (least >= -(2**31) and most < 2**31):
                frame = frame.with_columns(pl.col(side).cast(pl.Int32))
    return frame
