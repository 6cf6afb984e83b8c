"""Shards of one table whose columns have different types, as programs write them file by file: one type for all."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from twotower.data.table_errors import clip
from twotower.types import UserError

EXACT = 2**53  # beyond it a float is not every whole number
FINENESS = ("ms", "us", "ns")


class Shard(NamedTuple):
    """One file. ``first_line`` is the line of its first row, 0 where it has no lines; ``separator`` is of text alone."""

    path: Path
    frame: pl.LazyFrame
    schema: dict[str, pl.DataType]
    first_line: int
    separator: str = ","


def align(shards: list[Shard], setting: str) -> list[Shard]:
    """The shards with the columns of the first, each of one type in all of them.

    Whole numbers and fractions become fractions, numbers and text become text (``5``, not ``5.0``), dates take the finest
    resolution, and are UTC where they have different zones. The order of the shards changes nothing.

    Raises:
        UserError: for different columns, and for types that do not go together.
    """
    first = shards[0]
    for shard in shards[1:]:
        if different := set(first.schema) ^ set(shard.schema):
            names = ", ".join(sorted(clip(name, 40) for name in different)[:5])
            raise UserError(
                f"{first.path} and {shard.path} have different columns (not in both: {names}): give {setting} files of one kind"
            )
    types = {name: _type_of_all(name, shards) for name in first.schema}
    return [_with_types(shard, types) for shard in shards]


def _with_types(shard: Shard, types: dict[str, pl.DataType]) -> Shard:
    if shard.schema == types:
        return shard
    columns = [_as_type(name, shard.schema[name], kind).alias(name) for name, kind in types.items()]
    return shard._replace(frame=shard.frame.select(columns), schema=types)


def _type_of_all(name: str, shards: list[Shard]) -> pl.DataType:
    kind = shards[0].schema[name]
    for shard in shards[1:]:
        both = _common(kind, shard.schema[name])
        if both is None:
            raise UserError(
                f"{shards[0].path} and {shard.path}: the column {clip(name, 40)} is {kind} in one and "
                f"{shard.schema[name]} in the other: write it alike in all shards"
            )
        kind = both
    mixed = kind.is_float() and not all(shard.schema[name].is_float() for shard in shards)
    return pl.String() if mixed and any(_is_inexact(shard, name) for shard in shards) else kind


def _common(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """The type that holds the values of both; None where there is none."""
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        inner = _common(one.inner, other.inner)  # type: ignore[arg-type]
        return None if inner is None else pl.List(inner)
    if _is_text(one) or _is_text(other):
        return pl.String() if _is_plain(one) and _is_plain(other) else None
    if _is_date(one) and _is_date(other):
        finest = max((_unit(one), _unit(other)), key=FINENESS.index)
        return pl.Datetime(finest)  # type: ignore[arg-type]
    if one.is_numeric() and other.is_numeric():
        if one.is_float() or other.is_float():
            return pl.Float64()
        empty = [pl.LazyFrame(schema={"x": kind}) for kind in (one, other)]
        return pl.concat(empty, how="vertical_relaxed").collect_schema()["x"]
    return None


def _is_text(kind: pl.DataType) -> bool:
    return isinstance(kind, (pl.String, pl.Categorical, pl.Enum))


def _is_date(kind: pl.DataType) -> bool:
    return isinstance(kind, (pl.Date, pl.Datetime))


def _is_plain(kind: pl.DataType) -> bool:
    return _is_text(kind) or _is_date(kind) or kind.is_numeric() or kind == pl.Boolean


def _unit(kind: pl.DataType) -> str:
    return kind.time_unit if isinstance(kind, pl.Datetime) else "ms"


def _is_inexact(shard: Shard, name: str) -> bool:
    """Does a column of whole numbers hold one that is no float?"""
    if not shard.schema[name].is_integer():
        return False
    column = pl.col(name).cast(pl.Int128)
    ends = shard.frame.select(low=column.min(), high=column.max()).collect().row(0)
    return any(end is not None and abs(end) > EXACT for end in ends)


def _as_type(name: str, kind: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if kind == wanted:
        return column
    if wanted == pl.String and kind.is_float():
        whole = column.cast(pl.Int64, strict=False)
        text = pl.when(column == whole).then(whole.cast(pl.String)).otherwise(column.cast(pl.String))
        return pl.when(column.is_not_nan()).then(text)
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(wanted)
