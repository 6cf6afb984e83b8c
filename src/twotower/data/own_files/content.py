"""Find columns by their values: times of interactions, categories of items, ids of both tables."""

import re
from typing import cast

import polars as pl

from twotower.data.own_files.files import Source
from twotower.data.own_files.values import as_text, is_scalar

# 2024-05-31 with or without a time, 31.05.24, 20240531; others with a year and a time of day; and
# seconds, milli-, micro- or nanoseconds since 1970 from 2004 to 2033: earlier ones look like other
# numbers of ten digits
YEAR = r"\b(19|20)\d\d\b"
TIME = (
    r"^(((19|20)\d\d[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.](\d\d){1,2})([ T,].*)?"
    r"|(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
    rf"|.*{YEAR}.* \d\d?:\d\d.*|.* \d\d?:\d\d.*{YEAR}.*"
    r"|1[1-9]\d{8}(\d{3}){0,3}([.,]\d+)?)$"
)
# names of codes and counters, in which whole numbers of ten or thirteen digits are no times
CODE = re.compile(
    r"(^|[_\W])(id|code|zip|postcode|zipcode|key|no|nr|num|number|phone|mobile|tel|ean|gtin"
    r"|barcode|sku|hash)$|(?i:order|session|transaction|invoice|cart|basket|request)id$"
    r"|(Id|ID|No|Number)$"
)
MOST = 0.95  # of the values, so that a few wrong ones do not hide what a column is
MIN_ITEMS = 5  # of a category, on average


def time_columns(source: Source, roles: dict[str, str]) -> list[str]:
    """Columns that look like the times of interactions.

    Dates that all interactions of a user, or of an item, share are left out: they tell when the
    user registered or the item appeared.

    Args:
        source: the interactions.
        roles: columns of ``user``, ``item`` and others that are taken.
    """
    return [
        name
        for name in _free(source, roles)
        if not CODE.search(name)
        and _are_times(source.head()[name])
        and not any(_is_of_all(source, roles[side], name) for side in ("user", "item"))
    ]


def category_columns(source: Source, roles: dict[str, str]) -> dict[str, int]:
    """Text columns with few distinct values, one for each item, and how many values they have.

    Args:
        source: the interactions, or the table of items.
        roles: columns of ``item`` and others that are taken.
    """
    item = roles["item"]
    most = source.head()[item].n_unique() / MIN_ITEMS
    found = {}
    for name in _free(source, roles):
        values = source.known(name)
        num = values.n_unique()
        is_text = (
            values.dtype == pl.String and values.cast(pl.Float64, strict=False).is_null().all()
        )
        is_few = is_text and 2 <= num <= most
        if is_few and _is_of(source, source.head().lazy(), item, name) is not False:
            found[name] = num
    return found


def id_column(clicks: Source, other: Source) -> str | None:
    """The column by which rows of another table belong to interactions.

    Both tables have it under one name; its values differ in the other table and repeat among the
    interactions. None if there is no such column, or more than one.
    """
    shared = [
        name
        for name in clicks.schema
        if name in other.schema
        and is_scalar(other.schema[name])
        and other.head()[name].is_unique().all()
        and not clicks.head()[name].is_unique().all()
    ]
    return shared[0] if len(shared) == 1 else None


def _free(source: Source, roles: dict[str, str]) -> list[str]:
    taken = roles.values()
    return [name for name, dtype in source.schema.items() if name not in taken and is_scalar(dtype)]


def _are_times(column: pl.Series) -> bool:
    if column.dtype.is_temporal():
        num = column.count()
    else:
        if column.dtype.is_float():
            column = column.cast(pl.Int64, strict=False)  # else 1.6e12 stands for large numbers
        text = column.to_frame().select(as_text(pl.col(column.name))).to_series()
        num = int(text.str.contains(TIME).sum())
    return num >= MOST * len(column)


def _is_of_all(source: Source, side: str, column: str) -> bool | None:
    """Judged by the first rows if they suffice; in order of time, their ids may not repeat."""
    if _is_of(source, source.head().lazy(), side, column) is False:
        return False
    return _is_of(source, source.frame, side, column)


def _is_of(source: Source, rows: pl.LazyFrame, side: str, column: str) -> bool | None:
    """Whether a column has one value for each id, apart from a few; None if no id repeats."""
    value = pl.col(column)
    ids = rows.drop_nulls([side, column]).group_by(side)
    repeated = ids.agg(num=pl.len(), same=value.min() == value.max()).filter(pl.col("num") > 1)
    is_mostly = pl.col("same").mean() >= MOST
    return cast(bool | None, source.collect(repeated.select(is_mostly)).item())
