"""Ids, times and numbers of a user's table: what they are is judged by the first rows and held against all."""

from pathlib import Path
from typing import NamedTuple, cast

import polars as pl

from twotower.data.frames import TimeUnit
from twotower.types import UserError

FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M%#z",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
)
# the least number that can be a time since 1990 in the unit; the year 2106 in one is 1974 in the next
LEAST: dict[TimeUnit, float] = {"ns": 6.3e17, "us": 6.3e14, "ms": 6.3e11, "s": 6.3e8}
NAMES = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
}


class Clock(NamedTuple):
    """How a column tells the time.

    Attributes:
        unit: of the parsed numbers.
        parse: to ``Int64``, null where the value is none.
        meaning: for people.
    """

    unit: TimeUnit
    parse: pl.Expr
    meaning: str


def whole(raw: pl.Expr, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
    """The whole number of each id, and which ids would not survive it: ``007``, ``7.5`` and ``seven`` would not."""
    number = raw.cast(pl.Int64, strict=False)
    return number, raw.is_not_null() & raw.ne_missing(number.cast(dtype))


def may_be_whole(dtype: pl.DataType, has_types: bool) -> bool:
    """Are ids of this type numbers, or text that may hold numbers? What a typed file calls text stays text."""
    return dtype.is_integer() or dtype.is_float() or (dtype == pl.String and not has_types)


def holds_whole(ids: pl.Series, has_types: bool) -> bool:
    """Are all ids whole numbers, written as people write them?"""
    if not may_be_whole(ids.dtype, has_types):
        return False
    return not ids.to_frame("id").select(whole(pl.col("id"), ids.dtype)[1].any()).item()


def compact(ids: pl.Series) -> pl.Series:
    """Half the memory where the numbers allow it."""
    if ids.dtype == pl.Int64 and ids.len() and cast(int, ids.min()) > -(2**31) and cast(int, ids.max()) < 2**31:
        return ids.cast(pl.Int32)
    return ids


def clock(path: Path, head: pl.Series, unit: TimeUnit | None, time_format: str | None) -> Clock:
    """How to read a column of times.

    Args:
        path: its file, for the error.
        head: its first rows.
        unit: what the user says, or None to judge by the values.
        time_format: of strings, as the user says, or None to try the usual ones.

    Raises:
        UserError: if the values are neither numbers nor dates.
    """
    raw = pl.col(head.name)
    if head.dtype.is_temporal():
        precision = head.dtype.time_unit if isinstance(head.dtype, pl.Datetime) else "ms"
        return Clock(precision, raw.cast(pl.Datetime(precision)).dt.epoch(precision), "dates")
    values = head.drop_nulls()
    if time_format or (unit is None and head.dtype == pl.String and not _mostly_numbers(values)):
        return _dates(path, values, time_format)
    numbers = values.cast(pl.Float64, strict=False).drop_nulls().drop_nans()
    if unit is None and len(numbers) == len(values) and (dates := _compact_dates(path, head.dtype, values)):
        return dates
    unit = unit or _unit(numbers)
    exact = raw.cast(pl.Int64, strict=False) if head.dtype == pl.String or head.dtype.is_integer() else pl.lit(None, pl.Int64)
    decimal = raw.cast(pl.Float64, strict=False)
    decimal = pl.when(decimal.is_finite()).then(decimal)
    if unit == "s" and len(numbers) and (numbers % 1 != 0).any():
        exact, decimal, unit = exact * 1000, decimal * 1000, "ms"
    parse = exact if head.dtype.is_integer() else exact.fill_null(decimal.round().cast(pl.Int64, strict=False))
    return Clock(unit, parse, NAMES.get(unit, "a count, no clock time"))


def looks_like_dates(values: pl.Series) -> pl.Expr | None:
    """For a column of text that is dates, how to read it as days since 1970."""
    time_format = _format(values)
    if time_format is None:
        return None
    return pl.col(values.name).str.to_datetime(time_format, time_unit="ms", strict=False).dt.epoch("ms") / 86_400_000


def _dates(path: Path, values: pl.Series, stated: str | None) -> Clock:
    time_format = stated or _format(values)
    if time_format is None:
        example = str(values[0])[:40] if len(values) else ""
        raise UserError(
            f"{path} column {values.name}: {example!r} is neither a number nor a date such as 2024-05-31 or "
            "2024-05-31T12:00:00Z: set data.reader.time_format (%d.%m.%Y, say), or data.reader.columns.time to another column"
        )
    parse = pl.col(values.name).cast(pl.String).str.to_datetime(time_format, time_unit="ms", strict=False).dt.epoch("ms")
    return Clock("ms", parse, f"dates, {time_format}")


def _format(values: pl.Series) -> str | None:
    """The first format that most values have; the others are then named as wrong."""
    sample = values.head(1000)
    for time_format in FORMATS if len(sample) else ():
        parsed = sample.str.to_datetime(time_format, time_unit="ms", strict=False)
        if parsed.null_count() <= len(sample) / 2:
            return time_format
    return None


def _mostly_numbers(values: pl.Series) -> bool:
    return values.cast(pl.Float64, strict=False).null_count() <= len(values) / 2


def _compact_dates(path: Path, dtype: pl.DataType, values: pl.Series) -> Clock | None:
    """``20240531`` is a day."""
    text = values.cast(pl.String)
    if dtype.is_float() or not len(text) or not text.str.contains(r"^(19[9]\d|20\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])$").all():
        return None
    return _dates(path, text, "%Y%m%d")


def _unit(numbers: pl.Series) -> TimeUnit:
    """By the size of the median; too small for a time since 1990 is a count."""
    middle = abs(cast(float, numbers.median() or 0))
    return next((unit for unit, least in LEAST.items() if middle >= least), "step")
