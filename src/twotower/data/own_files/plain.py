"""Columns of every format as plain values: text without padding, and one form of what is missing."""

import ast
import json
import re
from collections.abc import Iterable
from typing import Any, Literal, cast
from zoneinfo import available_timezones

import polars as pl

from twotower.data.own_files.errors import clip
from twotower.data.own_files.files import HEAD_ROWS, Shard, Source
from twotower.data.own_files.values import as_text, has_text, is_list_of_labels
from twotower.errors import UserError

SAMPLE = 100  # values that tell what text and binary data stand for
MAX_LITERAL = 10_000  # longer text is no list of labels
UUID_BYTES = 16
UUID_PARTS = ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))  # start and length in 32 hexadecimal digits
VECTOR = re.compile(r"\[[-+.,\deE\s]*\d\.[-+.,\deE\s]*\]")  # as JSON, Python and NumPy write one
QUOTED = r""""[^"]*"|'[^']*'|[^\s,'"\[\]]+"""  # an element of a Python list
TEXT_KINDS = ("list", "python list", "vector", "object")
PRECISIONS: tuple[Literal["ns", "us", "ms"], ...] = ("ns", "us", "ms")  # the finest first
WIDE = (pl.UInt64, pl.Int128, pl.UInt128)


def plain(source: Source, missing: list[str]) -> Source:
    """The same table with every column made plain, before anything is decided about it.

    Null, NaN, empty text, blanks and the words of ``missing`` become null, also in lists. Blanks
    around text are removed. Categories and enumerations become text, arrays lists, and binary
    data that hold text or UUIDs that text. Text that holds lists or objects, as JSON lines and
    the CSV files of pandas have them, becomes lists or structs, so that it is not taken for text.
    Columns that differ in type between shards get one type.

    Args:
        source: a table as its files give it.
        missing: words that stand for a missing value, whatever the type of the column.

    Raises:
        UserError: for a column whose name cannot be used.
    """
    for name in source.schema:
        if re.fullmatch(r"\^.*\$|\*", name):
            raise UserError(f"{source.path}: Polars takes the column name {name} for a pattern: give it another one")
    words = [str(word).strip() for word in missing]
    special = _special(source)
    shards = [_plain_shard(shard, words, special) for shard in source.shards]
    return Source(source.setting, _alike(shards), source.text_format)


def known(source: Source, column: str) -> pl.Series:
    """The first values of a plain column that are there: what it is judged by."""
    values = source.head()[column].drop_nulls()
    if len(values) > 0:
        return values
    return source.collect(lambda rows: rows.select(column).drop_nulls().head(HEAD_ROWS))[column]


def _plain_shard(shard: Shard, words: list[str], special: dict[tuple[str, pl.DataType], str]) -> Shard:
    columns = []
    for name, dtype in shard.schema.items():
        column = pl.col(name)
        if (name, dtype) in special:
            column, dtype = _decoded(column, special[name, dtype])
        columns.append(_plain(column, dtype, words).alias(name))
    return _with(shard, columns)


def _with(shard: Shard, columns: list[pl.Expr]) -> Shard:
    frame = shard.frame.with_columns(columns)
    return shard._replace(frame=frame, schema=dict(frame.collect_schema()))


def _plain(column: pl.Expr, dtype: pl.DataType, words: list[str]) -> pl.Expr:
    if isinstance(dtype, pl.Extension):
        return _plain(column.ext.storage(), cast(pl.DataType, dtype.ext_storage()), words)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return _plain(column.cast(pl.String), pl.String(), words)
    if isinstance(dtype, pl.Array) and len(dtype.shape) == 1:
        return _plain(column.arr.to_list(), pl.List(dtype.inner), words)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone not in (None, "UTC", *available_timezones()):
        return column.dt.convert_time_zone("UTC")  # +05:30, which Polars can convert and nothing else
    if isinstance(dtype, pl.List) and dtype.inner in (pl.String, pl.Categorical, pl.Enum):
        inner = cast(pl.DataType, dtype.inner)
        return column.list.agg(_plain(pl.element(), inner, words).drop_nulls())
    if dtype == pl.String:
        text = column.str.strip_chars()
        return pl.when(~text.is_in(["", *words])).then(text)
    if dtype.is_float():
        column = column.fill_nan(None)
    numbers = [word for word in words if re.search(r"\d", word)]  # -1, say, in a column of numbers
    if numbers and has_text(dtype):
        return pl.when(~as_text(column, dtype).is_in(numbers)).then(column)
    return column


def _decoded(column: pl.Expr, special: str) -> tuple[pl.Expr, pl.DataType]:
    """A column that holds more than its type says, see :func:`_special`."""
    if special == "text":
        return column.cast(pl.String), pl.String()
    if special == "uuid":
        digits = column.bin.encode("hex")
        parts = [digits.str.slice(start, length) for start, length in UUID_PARTS]
        return pl.concat_str(parts, separator="-"), pl.String()
    if special == "object":
        return pl.struct(column), pl.Struct({"text": pl.String})
    labels = pl.List(pl.String())
    is_list = column.str.starts_with("[")
    single = pl.when(column.is_not_null()).then(pl.concat_list(column))
    if special == "vector":
        return pl.when(is_list).then(single).cast(pl.List(pl.Float64), strict=False), pl.List(pl.Float64())
    if special == "list":
        several = pl.when(is_list).then(column).str.json_decode(labels)
    else:
        elements = column.str.extract_all(QUOTED)
        several = pl.when(is_list).then(elements.list.agg(pl.element().str.strip_chars("'\"")))
    return pl.coalesce(several, single), labels


def _special(source: Source) -> dict[tuple[str, pl.DataType], str]:
    """Columns, with their types, of which most of the first values say more than the type.

    Binary data may be ``text`` or ``uuid``. Text may hold a JSON ``list``, a ``python list``, a
    ``vector`` of numbers, or an ``object``, which stands for everything that is nested deeper.
    """
    samples: dict[tuple[str, pl.DataType], list[Any]] = {}
    try:
        heads = source.heads()
    except UserError:  # whoever reads the table says it, once its columns are known
        return {}
    for head in heads:
        for name, dtype in head.schema.items():
            if dtype in (pl.Binary, pl.String):
                values = head[name].drop_nulls().head(SAMPLE).to_list()
                samples.setdefault((name, dtype), []).extend(values)
    kinds = {place: _kind(values) for place, values in samples.items() if values}
    return {place: kind for place, kind in kinds.items() if kind is not None}


def _kind(values: list[Any]) -> str | None:
    if isinstance(values[0], bytes):
        return _kind_of_bytes(values)
    found = [_kind_of_text(value.strip()) for value in values]
    return next((kind for kind in TEXT_KINDS if 2 * found.count(kind) > len(found)), None)


def _kind_of_bytes(values: list[bytes]) -> str | None:
    if all(_is_text(value) for value in values):
        return "text"
    return "uuid" if all(len(value) == UUID_BYTES for value in values) else None


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _kind_of_text(text: str) -> str | None:
    if not text.startswith(("[", "{")) or not text.endswith(("]", "}")):
        return None
    if VECTOR.fullmatch(text):
        return "vector"
    for kind, parse in (("list", json.loads), ("python list", ast.literal_eval)):
        try:
            value: Any = parse(text[:MAX_LITERAL])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and not any(isinstance(element, (list, dict, tuple)) for element in value):
            return kind
        return "object"
    return None


def _alike(shards: list[Shard]) -> list[Shard]:
    """Shards whose columns have the same types.

    Raises:
        UserError: for a column of which one shard holds lists, say, and another text.
    """
    changed: list[list[pl.Expr]] = [[] for _ in shards]
    for name in shards[0].schema:
        dtypes = [shard.schema[name] for shard in shards]
        if len(set(dtypes)) == 1:
            continue
        _refuse_unlike(shards, name)
        for columns, dtype in zip(changed, dtypes, strict=True):
            columns.append(_as_common(pl.col(name), dtype, dtypes).alias(name))
    return [_with(shard, columns) if columns else shard for shard, columns in zip(shards, changed, strict=True)]


def _refuse_unlike(shards: list[Shard], name: str) -> None:
    first = next(shard for shard in shards if shard.schema[name] != pl.Null)
    for shard in shards:
        one, other = first.schema[name], shard.schema[name]
        both_text = has_text(one) and has_text(other)
        both_durations = isinstance(one, pl.Duration) and isinstance(other, pl.Duration)
        both_lists = is_list_of_labels(one) and is_list_of_labels(other)
        if one != other and other != pl.Null and not (both_text or both_lists or both_durations):
            raise UserError(
                f"{first.path}: the column {clip(name, 40)} is {one} here and {other} in {shard.path}: write it alike "
                "in all shards"
            )


def _as_common(column: pl.Expr, dtype: pl.DataType, dtypes: list[pl.DataType]) -> pl.Expr:
    """A column in the type that all of ``dtypes`` can have without a loss: in doubt text."""
    some = [other for other in dtypes if other != pl.Null]
    if len(set(some)) == 1:
        return column.cast(some[0])
    if all(other.is_integer() and other not in WIDE for other in some):
        return column.cast(pl.Int64)
    if all(isinstance(other, pl.Duration) for other in some):
        return column.cast(pl.Duration(_finest([other.time_unit for other in some if isinstance(other, pl.Duration)])))
    if all(isinstance(other, (pl.Date, pl.Datetime)) for other in some):
        if isinstance(dtype, pl.Datetime) and dtype.time_zone:
            column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        units = [other.time_unit if isinstance(other, pl.Datetime) else "ms" for other in some]
        return column.cast(pl.Datetime(_finest(units)))
    if isinstance(dtype, pl.List) or any(isinstance(other, pl.List) for other in some):
        return column.cast(pl.List(pl.String))
    return as_text(column, dtype)


def _finest(units: Iterable[str]) -> Literal["ns", "us", "ms"]:
    return next(unit for unit in PRECISIONS if unit in units)
