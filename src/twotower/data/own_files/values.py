"""Ids, labels and numbers of a user's table, whatever type a file gives them."""

from typing import NamedTuple, cast

import polars as pl

MANTISSA: dict[type[pl.DataType], int] = {
    pl.Float16: 11,
    pl.Float32: 24,
    pl.Float64: 53,
}  # bits: whole numbers beyond them lose digits
NESTED = r'^(\{\}|\{".*\}|\[\]|\[["\d\[{-].*\])$'  # JSON that stands for more than one value
IN_POWERS = r"^[+-]?\d(\.\d+)?[eE]\+\d+$"  # what spreadsheets make of long numbers: digits are lost
MADE_DECIMAL = (
    r"^-?\d+\.0+$"  # how whole numbers of a column with gaps, or of decimals, are written
)
GROUPED = r"^[+-]?[1-9]\d{0,2}(,\d{3})+$"  # 1,234 may be a thousand or a little more than one


class Reading(NamedTuple):
    """One way to read a column.

    Attributes:
        values: what it makes of each value.
        lost: where it would change or lose the value; never null.
        meaning: for people, or "".
    """

    values: pl.Expr
    lost: pl.Expr
    meaning: str = ""


def has_text(dtype: pl.DataType) -> bool:
    """Have values of this type one way to be written that tells them apart?"""
    temporal = dtype.is_temporal() and not isinstance(dtype, pl.Duration)
    return dtype in (pl.String, pl.Boolean, pl.Null) or dtype.is_numeric() or temporal


def is_list_of_labels(dtype: pl.DataType) -> bool:
    """Lists of text or of whole numbers; lists of fractions are vectors."""
    if not isinstance(dtype, pl.List):
        return False
    inner = cast(pl.DataType, dtype.inner)
    return has_text(inner) and not inner.is_float()


def as_text(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Values as text that does not depend on how a format stores them: 5, 5.0 and 5.00 are ``5``.

    Args:
        values: an expression of a type that :func:`has_text`.
        dtype: the type.
    """
    text = values.cast(pl.String)
    if dtype.is_float():
        number = values.cast(pl.Int64, strict=False)
        return pl.when(number.cast(dtype) == values).then(number.cast(pl.String)).otherwise(text)
    if dtype.is_decimal() and cast(pl.Decimal, dtype).scale:
        return text.str.strip_chars_end("0").str.strip_chars_end(".")
    if isinstance(dtype, pl.Datetime):
        return text.str.replace(r"\.0+$", "")
    if isinstance(dtype, pl.Time):  # the cast alone leaves fractions out
        exact = values.dt.to_string("%H:%M:%S%.9f")
        return exact.str.strip_chars_end("0").str.strip_chars_end(".")
    return text


def id_readings(
    column: pl.Series, may_be_whole: bool, may_be_nested: bool = False
) -> list[Reading]:
    """How ids can be read: as whole numbers if all of them are, else as the text that they are.

    Args:
        column: values that are known, by which the readings are chosen.
        may_be_whole: no other table has ids of this side that are not whole numbers.
        may_be_nested: text such as ``[1]`` may have been a list, as in JSON lines that are read as
            text; elsewhere it is an id like any other.
    """
    raw, dtype = pl.col(column.name), column.dtype
    lost = pl.lit(False)
    if dtype.is_float():
        lost = (raw.abs() >= 2 ** MANTISSA[type(dtype)]).fill_null(False)
    may_be_whole = may_be_whole and (dtype == pl.String or dtype.is_numeric())
    readings = []
    if is_made_decimal(column):
        whole, meaning = made_whole(raw), "whole numbers, written as 5.0"
        other = ~raw.str.contains(MADE_DECIMAL).fill_null(True)
        readings = [_whole(whole, dtype, other, meaning)] if may_be_whole else []
        readings.append(Reading(whole, other, meaning))
    if may_be_whole:
        readings.append(_whole(raw, dtype, lost))
    if dtype == pl.String:
        lost = raw.str.contains(f"{NESTED}|{IN_POWERS}" if may_be_nested else IN_POWERS).fill_null(
            False
        )
    return [*readings, Reading(as_text(raw, dtype), lost)]


def _whole(values: pl.Expr, dtype: pl.DataType, lost: pl.Expr, meaning: str = "") -> Reading:
    """Whole numbers; ``007``, ``7.5`` and ``seven`` would not survive it."""
    number = values.cast(pl.Int64, strict=False)
    return Reading(number, lost | values.ne_missing(number.cast(dtype)), meaning)


def is_made_decimal(values: pl.Series) -> bool:
    """Is all text ``5.0`` or ``5.00``, whole numbers that their writer took for decimal ones?"""
    return (
        values.dtype == pl.String
        and len(values) > 0
        and bool(values.str.contains(MADE_DECIMAL).all())
    )


def made_whole(text: pl.Expr) -> pl.Expr:
    """``5`` of ``5.0``; see :func:`is_made_decimal`."""
    return text.str.replace(r"\.0+$", "")


def compact(ids: pl.Series) -> pl.Series:
    """Half the memory where the numbers allow it."""
    if (
        ids.dtype == pl.Int64
        and ids.len()
        and cast(int, ids.min()) > -(2**31)
        and cast(int, ids.max()) < 2**31
    ):
        return ids.cast(pl.Int32)
    return ids


def numbers(column: pl.Series, raw: pl.Expr) -> pl.Expr:
    """Numbers, null where a value is none; text may have decimal commas if all of it has.

    Args:
        column: values that are known, by which text is judged.
        raw: the values to read.
    """
    number = with_point(column, raw).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def with_point(column: pl.Series, raw: pl.Expr) -> pl.Expr:
    """``4,5`` as ``4.5`` in a column of such text; then ``4.5`` is ambiguous and becomes null."""
    if not _has_decimal_commas(column):
        return raw
    return pl.when(~raw.str.contains(".", literal=True)).then(
        raw.str.replace(",", ".", literal=True)
    )


def _has_decimal_commas(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return False
    with_comma = column.filter(column.str.contains(r"^[+-]?\d*,\d+$"))
    return len(with_comma) > 0 and not bool(with_comma.str.contains(GROUPED).all())
