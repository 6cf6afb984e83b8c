"""Shards of one table: files with the same columns, in any order."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from twotower.data.own_files.errors import clip
from twotower.errors import UserError


class Shard(NamedTuple):
    """One file. ``first_line`` is the line of its first row, 0 where it has no lines; ``separator`` is of text alone."""

    path: Path
    frame: pl.LazyFrame
    schema: dict[str, pl.DataType]
    first_line: int
    separator: str = ","


def same_columns(shards: list[Shard], setting: str, absent_is_null: bool) -> list[Shard]:
    """The shards, which must have the same columns.

    Args:
        shards: of one table.
        setting: where they are set.
        absent_is_null: give a shard the columns of the others, without a value: programs that
            write JSON lines leave fields without a value out.

    Raises:
        UserError: naming two files, and the columns that are not in both.
    """
    first = shards[0]
    if absent_is_null:
        names = dict.fromkeys(name for shard in shards for name in shard.schema)
        return [_with_columns(shard, list(names)) for shard in shards]
    for shard in shards[1:]:
        if different := set(first.schema) ^ set(shard.schema):
            listed = ", ".join(sorted(clip(name, 40) for name in different)[:5])
            raise UserError(
                f"{first.path} and {shard.path} have different columns (not in both: {listed}): give {setting} files of one kind"
            )
    return shards


def _with_columns(shard: Shard, names: list[str]) -> Shard:
    absent = [pl.lit(None).alias(name) for name in names if name not in shard.schema]
    if not absent:
        return shard
    frame = shard.frame.with_columns(absent).select(names)
    return shard._replace(frame=frame, schema=dict(frame.collect_schema()))
