"""Times of a user's table: how they are read is judged by the first ones and held against all."""

from pathlib import Path
from typing import NamedTuple, cast

import polars as pl

from twotower.data.frames import TimeUnit
from twotower.data.own_files.values import MANTISSA, Reading, with_point
from twotower.errors import UserError

FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%d %H:%M:%S%.f %#z",
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
DIGITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}  # after the point, down to nanoseconds
FINER: dict[TimeUnit, TimeUnit] = {"s": "ms", "ms": "us", "us": "ns"}
EXACT = 2**53  # floats hold every whole number up to this one
LAST_NS = 2**63 - 1  # the last time that fits into 64 bits
DECIMAL = pl.Decimal(38, 18)


class Clock(NamedTuple):
    """How a column tells the time.

    Attributes:
        unit: of the numbers that ``reading`` gives.
        reading: to ``Int64``, or to ``Float64`` for counts.
        coarsest: unit to which :func:`coarsen` may go where nothing is lost.
    """

    unit: TimeUnit
    reading: Reading
    coarsest: TimeUnit


def clocks(
    path: Path, column: pl.Series, unit: TimeUnit | None, time_format: str | None
) -> list[Clock]:
    """How a column of times can be read, the most compact way first.

    Args:
        path: its file, for the error.
        column: its first known values.
        unit: what the user says, or None to judge by the values.
        time_format: of text, as the user says, or None to try the usual ones.

    Raises:
        UserError: if the values are neither numbers nor dates.
    """
    raw, dtype = pl.col(column.name), column.dtype
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        precision = dtype.time_unit if isinstance(dtype, pl.Datetime) else "ms"
        times = raw.cast(pl.Datetime(precision)).dt.epoch(precision)
        return [Clock(precision, Reading(times, pl.lit(False), "dates"), precision)]
    if isinstance(dtype, pl.Duration):
        return [
            Clock(
                "step", Reading(raw.cast(pl.Int64), pl.lit(False), "durations on one clock"), "step"
            )
        ]
    if dtype == pl.Time:
        raise UserError(
            f"{path} column {column.name} holds times of day, which do not say the day: set "
            "data.reader.columns.time to a column of dates or numbers (date, say)"
        )
    raw = with_point(column, raw)
    values = column.to_frame().select(raw).to_series()
    if time_format or (unit is None and dtype == pl.String and not _mostly_numbers(values)):
        return _dates(path, values, time_format)
    found = values.cast(pl.Float64, strict=False).drop_nulls()
    if dtype in (pl.Float16, pl.Float32) and found.abs().max() >= 2 ** MANTISSA[type(dtype)]:
        raise UserError(
            f"{path} column {column.name} holds numbers of type {dtype}, too short for such times, so that different "
            "ones are alike: write 64-bit numbers, or set data.reader.columns.time to another column"
        )
    found = found.filter(found.is_finite())
    if unit is None and len(found) == len(values) and _are_compact_dates(values):
        return _dates(path, values.cast(pl.String), "%Y%m%d")
    return _counts(raw, dtype, unit or _unit(found))


def coarsen(times: pl.Series, clock: Clock) -> tuple[pl.Series, TimeUnit]:
    """The times in the coarsest unit that loses nothing, and counts as whole numbers if all are."""
    unit = clock.unit
    if times.dtype.is_float():
        are_whole = not ((times % 1 != 0) | (times.abs() > EXACT)).any()
        return (times.cast(pl.Int64) if are_whole else times), unit
    while unit != clock.coarsest and not (times % 1000 != 0).any():
        times, unit = times // 1000, next(name for name, finer in FINER.items() if finer == unit)
    return times, unit


def looks_like_dates(values: pl.Series) -> pl.Expr | None:
    """For a column of text that is dates, how to read it as days since 1970."""
    time_format = _format(values)
    return _parsed(pl.col(values.name), time_format, "ms") / 86_400_000 if time_format else None


def _counts(raw: pl.Expr, dtype: pl.DataType, unit: TimeUnit) -> list[Clock]:
    """Whole numbers; where some are written otherwise, nanoseconds, or floats for counts without a unit."""
    meaning = NAMES.get(unit, "a count, no clock time")
    whole = raw.cast(pl.Int64, strict=False)
    if dtype.is_float() or dtype.is_decimal():
        whole = pl.when(whole.cast(dtype) == raw).then(whole)
    compact = Clock(unit, _reading(whole, raw, meaning), unit)
    if dtype.is_integer():
        return [compact]
    if unit in DIGITS:
        return [compact, Clock("ns", _reading(_nanoseconds(raw, DIGITS[unit]), raw, meaning), unit)]
    number = raw.cast(pl.Float64, strict=False)
    return [
        compact,
        Clock(unit, _reading(pl.when(number.is_finite()).then(number), raw, meaning), unit),
    ]


def _reading(times: pl.Expr, raw: pl.Expr, meaning: str) -> Reading:
    return Reading(times, raw.is_not_null() & times.is_null(), meaning)


def _nanoseconds(raw: pl.Expr, digits: int) -> pl.Expr:
    """As decimals, because floats do not hold nanoseconds since 1970; null for more digits than those."""
    number = raw.cast(pl.String).cast(DECIMAL, strict=False)
    exact = pl.when(number.abs() < LAST_NS // 10**digits).then(number) * 10**digits
    whole = exact.cast(pl.Int64, strict=False)
    return pl.when(whole.cast(DECIMAL) == exact).then(whole)


def _dates(path: Path, values: pl.Series, stated: str | None) -> list[Clock]:
    time_format = stated or _format(values)
    if time_format is None:
        example = str(values[0])[:40] if len(values) else ""
        raise UserError(
            f"{path} column {values.name}: {example!r} is neither a number nor a date such as 2024-05-31 or "
            "2024-05-31T12:00:00Z: set data.reader.time_format (%d.%m.%Y, say), or data.reader.columns.time to another column"
        )
    raw = pl.col(values.name)
    text = raw.cast(pl.String)

    def clock(unit: TimeUnit, digits: int) -> Clock:
        times = _parsed(text, time_format, unit)
        if unit == "ns":  # what does not fit would come out as another time
            times = pl.when(_parsed(text, time_format, "us").abs() < LAST_NS // 1000).then(times)
        cut = text.str.contains(rf"[.,]\d{{{digits}}}\d*[1-9]")
        return Clock(unit, _reading(pl.when(~cut).then(times), raw, f"dates, {time_format}"), "ms")

    return [clock("us", 6), clock("ns", 9)]


def _parsed(text: pl.Expr, time_format: str, unit: TimeUnit) -> pl.Expr:
    times = text.str.to_datetime(time_format, time_unit=unit, strict=False)  # type: ignore[arg-type]
    return times.dt.epoch(unit)  # type: ignore[arg-type]


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


def _are_compact_dates(values: pl.Series) -> bool:
    """``20240531`` is a day."""
    if values.dtype.is_float() or not len(values):
        return False
    return bool(
        values.cast(pl.String)
        .str.contains(r"^(19[9]\d|20\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])$")
        .all()
    )


def _unit(found: pl.Series) -> TimeUnit:
    """By the size of the median; too small for a time since 1990 is a count."""
    middle = abs(cast(float, found.median() or 0))
    return next((unit for unit, least in LEAST.items() if middle >= least), "step")
