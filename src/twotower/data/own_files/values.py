"""Ids, labels and numbers, whatever type a file stores them in."""

from typing import NamedTuple

import polars as pl

LABELS = pl.List(pl.String())
# 5.0 and 5.00, as pandas and decimal types write the whole number 5; seconds without a fraction
WITHOUT_FRACTION = r"^(-?\d+|.*:\d\d)\.0+$"
IN_POWERS = r"^[+-]?\d(\.\d+)?[eE]\+\d+$"  # what spreadsheets make of long numbers: digits are lost
DECIMAL_COMMA = r"^[+-]?\d*,\d+$"
NOT_AN_ID = "not an id that can be kept: write ids as whole numbers or text"
GROUPED = r"^[+-]?[1-9]\d{0,2}(,\d{3})+$"  # 1,234 may be a thousand or a little more than one


class Reading(NamedTuple):
    """One way to read a column.

    Attributes:
        values: the values as they are read.
        lost: marks the values that would be changed or lost; never null.
    """

    values: pl.Expr
    lost: pl.Expr


def is_scalar(dtype: pl.DataType) -> bool:
    """Whether values of this type can be ids and labels, once a table is plain."""
    return dtype.is_numeric() or dtype in (pl.String, pl.Null, pl.Date, pl.Datetime)


def as_text(column: pl.Expr) -> pl.Expr:
    """Text that does not depend on how a format stores a value: 5, 5.0 and 5.00 are ``5``."""
    text = column.cast(pl.String)
    # the search for plain text is far quicker than the expression, and few ids have a point
    may_end = text.str.contains(".0", literal=True)
    return pl.when(may_end).then(text.str.replace(WITHOUT_FRACTION, "$1")).otherwise(text)


def plain(column: pl.Expr, dtype: pl.DataType, missing: list[str]) -> pl.Expr:
    """A column as text, numbers, dates or lists of text, with null where a value is missing.

    Empty text, blanks, NaN and the words of ``missing`` become null, and are left out of lists.
    Blanks around text are removed. Times are in UTC, durations in seconds. Other types stay.
    """
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    if inner is not None and not (inner.is_nested() or inner.is_float() or inner == pl.Binary):
        return column.cast(LABELS).list.agg(_text(pl.element(), missing).drop_nulls())
    if dtype in (pl.String, pl.Boolean, pl.Decimal, pl.Categorical, pl.Enum):
        return _text(column.cast(pl.String), missing)
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone:
            column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return column.cast(pl.Datetime("us"))
    if dtype == pl.Duration:
        return column.dt.total_seconds(fractional=True)
    if dtype.is_float():
        column = column.fill_nan(None)
    codes = [word for word in missing if word.strip("-.").isdigit()]  # -1, say
    if codes and dtype.is_numeric():
        return pl.when(~as_text(column).is_in(codes)).then(column)
    return column


def _text(text: pl.Expr, missing: list[str]) -> pl.Expr:
    text = text.str.strip_chars()
    return pl.when(~text.is_in(["", *missing])).then(text)


def id_readings(name: str, dtype: pl.DataType, may_be_whole: bool) -> list[Reading]:
    """How ids can be read: as whole numbers if all of them are, else as text.

    Args:
        name: of the column.
        dtype: its type.
        may_be_whole: False if another table has ids of this side that are not whole numbers.
    """
    raw = pl.col(name)
    text = as_text(raw)
    lost = text.str.contains(IN_POWERS)
    if dtype.is_float():  # beyond 2 to this power, floats do not hold every whole number
        lost = raw.abs() >= 2 ** (53 if dtype == pl.Float64 else 24)
    lost = lost.fill_null(False)
    as_they_are = Reading(text, lost)
    if not may_be_whole or not (dtype == pl.String or dtype.is_numeric()):
        return [as_they_are]
    if dtype.is_integer():
        whole = raw.cast(pl.Int64, strict=False)
        return [Reading(whole, whole.is_null() & raw.is_not_null()), as_they_are]
    whole = text.cast(pl.Int64, strict=False)  # 007, +7 and 7.5 would not survive this
    return [Reading(whole, lost | whole.cast(pl.String).ne_missing(text)), as_they_are]


def numbers(column: pl.Expr, known: pl.Series) -> pl.Expr:
    """Finite numbers; null where a value is none.

    Args:
        column: the values to read.
        known: some of them, see :func:`with_point`.
    """
    number = with_point(column, known).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def with_point(column: pl.Expr, known: pl.Series) -> pl.Expr:
    """``4,5`` as ``4.5``, where the known values have decimal commas."""
    if known.dtype != pl.String:
        return column
    with_comma = known.filter(known.str.contains(DECIMAL_COMMA))
    if with_comma.is_empty() or with_comma.str.contains(GROUPED).all():
        return column
    return column.str.replace(",", ".", literal=True)
