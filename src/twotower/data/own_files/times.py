"""Times of a user's table: numbers in a unit, or dates."""

from pathlib import Path
from typing import NamedTuple, cast

import polars as pl

from twotower.data.frames import TimeUnit
from twotower.data.own_files.values import Reading, as_text, with_point
from twotower.errors import UserError

FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f")
WITH_OFFSET = ("%Y-%m-%d %H:%M%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
YEAR_FIRST = r"^\s*\d{4}-"
# the least number that can be a time since 1990; the year 2106 in one unit is 1974 in the next
LEAST: dict[TimeUnit, float] = {"ns": 6.3e17, "us": 6.3e14, "ms": 6.3e11, "s": 6.3e8}
NAMES = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
}
MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}
MICROSECONDS_A_DAY = 86_400 * 10**6
FLOAT32_EXACT = 2**24  # 32-bit floats hold every whole number up to this one


class Clock(NamedTuple):
    """How a column of times is read.

    Attributes:
        unit: of the numbers that ``reading`` gives.
        reading: to ``Int64``, or to ``Float64`` for counts with fractions.
        meaning: for people.
    """

    unit: TimeUnit
    reading: Reading
    meaning: str


def clocks(
    path: Path, known: pl.Series, unit: TimeUnit | None, time_format: str | None
) -> list[Clock]:
    """How a column of times can be read: as whole numbers, or else with fractions.

    Args:
        path: its file, for the error.
        known: its first known values.
        unit: as stated by the user, or None to judge by the size of the values.
        time_format: of dates as text, as stated by the user, or None for ISO 8601.

    Raises:
        UserError: if the values are neither numbers nor dates.
    """
    raw, dtype = pl.col(known.name), known.dtype
    if dtype.is_temporal():
        times = raw.cast(pl.Datetime("us")).dt.epoch("us")
        return [Clock("us", Reading(times, pl.lit(False)), "dates")]
    raw = with_point(raw, known)
    found = known.to_frame().select(raw.cast(pl.Float64, strict=False)).to_series().drop_nulls()
    if time_format or (unit is None and 2 * len(found) < len(known)):
        return [_dates(path, known, time_format)]
    if dtype == pl.Float32 and cast(float, found.abs().max()) >= FLOAT32_EXACT:
        raise UserError(
            f"{path} column {known.name} holds 32-bit floats, which are too short for such times: "
            "write 64-bit numbers, or set data.reader.columns.time to another column"
        )
    unit = unit or _unit(found)
    meaning = NAMES.get(unit, "a count, no clock time")
    number = raw.cast(pl.Float64, strict=False)
    whole = raw.cast(pl.Int64, strict=False)
    if dtype.is_float():
        whole = pl.when(number == number.floor()).then(whole)
    if unit in MICROSECONDS:
        fine: TimeUnit = "us"
        fractions = (number * MICROSECONDS[unit]).round().cast(pl.Int64, strict=False)
    else:
        fine = unit
        fractions = pl.when(number.is_finite()).then(number)
    return [
        Clock(unit, _reading(whole, raw), meaning),
        Clock(fine, _reading(fractions, raw), meaning),
    ]


def parse_dates(text: pl.Expr, time_format: str | None = None) -> pl.Expr:
    """Dates as microseconds since 1970; null where a value is none.

    Args:
        text: dates without a zone are in UTC.
        time_format: in the letters of ``strptime``; None for ISO 8601, also with slashes or blanks.
    """
    if time_format is not None:
        return text.str.to_datetime(time_format, time_unit="us", strict=False).dt.epoch("us")
    text = text.str.replace_all("/", "-", literal=True)
    text = pl.when(text.str.contains(YEAR_FIRST)).then(text)  # 31/05/24 is not of the year 31
    text = text.str.replace(r"^(\S{10})T", "$1 ").str.replace(r" ?(UTC|Z)$", "")
    text = text.str.replace(r" ([+-]\d\d:?\d\d)$", "$1")
    parsed = [
        text.str.to_datetime(known, time_unit="us", strict=False).dt.epoch("us")
        for known in FORMATS + WITH_OFFSET
    ]
    return pl.coalesce(parsed)


def _dates(path: Path, known: pl.Series, time_format: str | None) -> Clock:
    raw = pl.col(known.name)
    times = parse_dates(as_text(raw), time_format)
    num_wrong = known.to_frame().select(times).to_series().null_count()
    if time_format is None and 2 * num_wrong > len(known):
        raise UserError(
            f"{path} column {known.name}: {str(known[0])[:40]!r} is neither a number nor a date "
            "such as 2024-05-31 or 2024-05-31T12:00:00Z: set data.reader.time_format "
            "(%d.%m.%Y, say), or data.reader.columns.time to another column"
        )
    return Clock("us", _reading(times, raw), "dates")


def _reading(times: pl.Expr, raw: pl.Expr) -> Reading:
    return Reading(times, raw.is_not_null() & times.is_null())


def _unit(found: pl.Series) -> TimeUnit:
    """By the size of the median; too small for a time since 1990 is a count."""
    middle = abs(cast(float, found.median() or 0))
    return next((unit for unit, least in LEAST.items() if middle >= least), "step")
