"""Columns of every format as plain values: text without padding, and one form of what is missing."""

import json
import re
from typing import cast

import polars as pl

from twotower.data.table_files import HEAD_ROWS, Shard, Source, not_blank
from twotower.data.table_values import as_text, has_text

UUID_BYTES = 16
UUID_PARTS = ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))  # start and length in 32 hexadecimal digits


def plain(source: Source, missing: list[str]) -> Source:
    """The same table with every column made plain, before anything is decided about it.

    Null, NaN, empty text, blanks and the words of ``missing`` become null, also in lists. Blanks
    around text are removed. Categories and enumerations become text, arrays lists, and binary
    data that hold text or UUIDs become that text. In JSON lines, whose values are read as text,
    lists become lists again, and objects structs, which no role takes for text.

    Args:
        source: a table as its files give it.
        missing: words that stand for a missing value, whatever the type of the column.
    """
    words = [str(word).strip() for word in missing]
    special = {name: _special(source, name) for name in source.schema}
    shards = [_plain_shard(shard, words, special) for shard in source.shards]
    return Source(source.setting, shards, source.text_format)


def known(source: Source, column: str) -> pl.Series:
    """The first values of a plain column that are there: what it is judged by."""
    values = source.head()[column].drop_nulls()
    if len(values) > 0:
        return values
    return source.collect(lambda rows: rows.select(column).drop_nulls().head(HEAD_ROWS))[column]


def _plain_shard(shard: Shard, words: list[str], special: dict[str, str | None]) -> Shard:
    columns = []
    for name, dtype in shard.schema.items():
        column, dtype = _decoded(pl.col(name), dtype, special[name])
        columns.append(_plain(column, dtype, words).alias(name))
    frame = shard.frame.with_columns(columns)
    return shard._replace(frame=frame, schema=dict(frame.collect_schema()))


def _plain(column: pl.Expr, dtype: pl.DataType, words: list[str]) -> pl.Expr:
    if isinstance(dtype, pl.Extension):
        return _plain(column.ext.storage(), cast(pl.DataType, dtype.ext_storage()), words)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return _plain(column.cast(pl.String), pl.String(), words)
    if isinstance(dtype, pl.Array) and len(dtype.shape) == 1:
        return _plain(column.arr.to_list(), pl.List(dtype.inner), words)
    if isinstance(dtype, pl.List) and dtype.inner in (pl.String, pl.Categorical, pl.Enum):
        inner = cast(pl.DataType, dtype.inner)
        return column.list.eval(_plain(pl.element(), inner, words).drop_nulls())
    if dtype == pl.String:
        text = column.str.strip_chars()
        return pl.when(~text.is_in(["", *words])).then(text)
    if dtype.is_float():
        column = column.fill_nan(None)
    numbers = [word for word in words if re.search(r"\d", word)]  # -1, say, in a column of numbers
    if numbers and has_text(dtype):
        return pl.when(~as_text(column, dtype).is_in(numbers)).then(column)
    return column


def _decoded(column: pl.Expr, dtype: pl.DataType, special: str | None) -> tuple[pl.Expr, pl.DataType]:
    """A column that holds more than its type says, see :func:`_special`."""
    if special == "text":
        return column.cast(pl.String), pl.String()
    if special == "uuid":
        digits = column.bin.encode("hex")
        parts = [digits.str.slice(start, length) for start, length in UUID_PARTS]
        return pl.concat_str(parts, separator="-"), pl.String()
    if special == "list":
        lists = pl.when(column.str.starts_with("[")).then(column)
        single = pl.when(column.is_not_null()).then(pl.concat_list(column))
        several = lists.str.json_decode(pl.List(pl.String))
        return pl.coalesce(several, single), pl.List(pl.String)
    if special == "object":
        return pl.struct(column), pl.Struct({"object": pl.String})
    return column, dtype


def _special(source: Source, name: str) -> str | None:
    """``text`` or ``uuid`` for such binary data, ``list`` or ``object`` for such JSON."""
    dtype = source.schema[name]
    if dtype != pl.Binary and not (source.is_json and dtype == pl.String):
        return None
    rows = source.collect(lambda rows: not_blank(source, rows).select(name).drop_nulls().head(100))
    values = rows[name].to_list()
    if not values:
        return None
    if dtype == pl.Binary:
        if all(_is_text(value) for value in values):
            return "text"
        return "uuid" if all(len(value) == UUID_BYTES for value in values) else None
    kinds = [_json_kind(value) for value in values]
    return max(("list", "object", None), key=kinds.count)


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _json_kind(text: str) -> str | None:
    if not text.startswith(("[", "{")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return "list" if isinstance(value, list) else "object"
