"""Columns of every format as plain values: text without padding, and one form of what is missing."""

import re
from typing import Literal, cast

import polars as pl

from twotower.data.own_files.errors import clip
from twotower.data.own_files.files import Shard, Source
from twotower.data.own_files.values import as_text, has_text, is_list_of_labels
from twotower.errors import UserError

UUID_PARTS = (
    (0, 8),
    (8, 4),
    (12, 4),
    (16, 4),
    (20, 12),
)  # start and length in 32 hexadecimal digits
# what most values of a text column look like that holds more than text, as JSON, Python and NumPy write it
TEXTS = {
    "vector": r"^\[[-+.,\deE\s]*\d\.[-+.,\deE\s]*\]$",
    "list": r"""^\[\s*(['"\d-][^\[{(]*)?\]$""",
    "nested": r"^(\{.*\}|\[.*[\[{(].*\])$",
}
ELEMENT = r""""[^"]*"|'[^']*'|[^\s,'"\[\]]+"""
LABELS = pl.List(pl.String())
PRECISIONS: tuple[Literal["ns", "us", "ms"], ...] = ("ns", "us", "ms")  # the finest first


def plain(source: Source, missing: list[str]) -> Source:
    """The same table with every column made plain, before anything is decided about it.

    Null, NaN, empty text, blanks and the words of ``missing`` become null, also in lists. Blanks
    around text are removed. Categories and enumerations become text, arrays lists, times with a
    zone times in UTC, and binary data that hold text or UUIDs that text. Text that holds lists or
    objects becomes lists or structs, so that it is not taken for text. Columns that differ in
    type between shards get one type.

    Args:
        source: a table as its files give it.
        missing: words that stand for a missing value, whatever the type of the column.

    Raises:
        UserError: for a column whose name cannot be used, or of which one shard holds lists, say,
            and another text.
    """
    for name in source.schema:
        if re.fullmatch(r"\^.*\$|\*", name):
            raise UserError(
                f"{source.path}: Polars takes the column name {name} for a pattern: give it another one"
            )
    words = [word.strip() for word in missing]
    contents = _contents(source)
    shards = []
    for shard in source.shards:
        columns = []
        for name, dtype in shard.schema.items():
            column, dtype = _decoded(pl.col(name), dtype, contents.get((name, dtype)))
            columns.append(_plain(column, dtype, words).alias(name))
        shards.append(shard.with_columns(columns))
    return Source(source.setting, _alike(shards))


def _plain(column: pl.Expr, dtype: pl.DataType, words: list[str]) -> pl.Expr:
    if isinstance(dtype, pl.Extension):
        return _plain(column.ext.storage(), cast(pl.DataType, dtype.ext_storage()), words)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return _plain(column.cast(pl.String), pl.String(), words)
    if isinstance(dtype, pl.Array) and len(dtype.shape) == 1:
        return _plain(column.arr.to_list(), pl.List(dtype.inner), words)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if isinstance(dtype, pl.List) and dtype.inner in (pl.String, pl.Categorical, pl.Enum):
        return column.list.agg(
            _plain(pl.element(), cast(pl.DataType, dtype.inner), words).drop_nulls()
        )
    if dtype == pl.String:
        text = column.str.strip_chars()
        return pl.when(~text.is_in(["", *words])).then(text)
    if dtype.is_float():
        column = column.fill_nan(None)
    numbers = [word for word in words if re.search(r"\d", word)]  # -1, say, in a column of numbers
    if numbers and has_text(dtype):
        return pl.when(~as_text(column, dtype).is_in(numbers)).then(column)
    return column


def _contents(source: Source) -> dict[tuple[str, pl.DataType], str]:
    """What columns of text or binary data hold, by name and type, where their first values say more than the type."""
    try:
        heads = source.heads()
    except UserError:  # whoever reads the table says it, once its columns are known
        return {}
    contents: dict[tuple[str, pl.DataType], str] = {}
    for name in source.schema:
        for dtype in (pl.String(), pl.Binary()):
            parts = [head[name] for head in heads if head.schema[name] == dtype]
            values = pl.concat(parts).drop_nulls() if parts else pl.Series()
            if len(values):
                contents[name, dtype] = (
                    _content_of_text(values) if dtype == pl.String else _content_of_binary(values)
                )
    return contents


def _content_of_text(values: pl.Series) -> str:
    text = values.str.strip_chars()
    return next(
        (
            content
            for content, pattern in TEXTS.items()
            if 2 * text.str.contains(pattern).sum() > len(text)
        ),
        "",
    )


def _content_of_binary(values: pl.Series) -> str:
    try:
        is_text = not values.cast(pl.String).str.contains(r"\p{C}").any()  # control characters
    except pl.exceptions.ComputeError:  # no UTF-8
        is_text = False
    if is_text:
        return "text"
    return "uuid" if (values.bin.size() == 16).all() else ""


def _decoded(
    column: pl.Expr, dtype: pl.DataType, content: str | None
) -> tuple[pl.Expr, pl.DataType]:
    """A column that holds more than its type says, see :func:`_contents`."""
    if content == "text":
        return column.cast(pl.String), pl.String()
    if content == "uuid":
        digits = column.bin.encode("hex")
        return pl.concat_str(
            [digits.str.slice(*part) for part in UUID_PARTS], separator="-"
        ), pl.String()
    elements = column.str.extract_all(ELEMENT)
    if content == "vector":
        return elements.cast(pl.List(pl.Float64), strict=False), pl.List(pl.Float64())
    if content == "list":
        labels = elements.list.agg(pl.element().str.strip_chars("'\""))
        single = pl.when(column.is_not_null()).then(pl.concat_list(column))
        return pl.when(column.str.contains(r"^\s*\[")).then(labels).otherwise(single), LABELS
    if content == "nested":
        return pl.struct(column), pl.Struct({"text": pl.String})
    return column, dtype


def _alike(shards: list[Shard]) -> list[Shard]:
    """Shards whose columns have the same types."""
    changed: list[list[pl.Expr]] = [[] for _ in shards]
    for name in shards[0].schema:
        dtypes = [shard.schema[name] for shard in shards]
        if len(set(dtypes)) == 1:
            continue
        some = list(dict.fromkeys(dtype for dtype in dtypes if dtype != pl.Null))
        common = _common(some)
        if common is None:
            first, other = (
                next(shard for shard in shards if shard.schema[name] == dtype) for dtype in some[:2]
            )
            raise UserError(
                f"{first.path}: the column {clip(name, 40)} is {some[0]} here and {some[1]} in {other.path}: write it "
                "alike in all shards"
            )
        for columns, dtype in zip(changed, dtypes, strict=True):
            column = (
                as_text(pl.col(name), dtype) if common == pl.String else pl.col(name).cast(common)
            )
            columns.append(column.alias(name))
    return [
        shard.with_columns(columns) if columns else shard
        for shard, columns in zip(shards, changed, strict=True)
    ]


def _common(dtypes: list[pl.DataType]) -> pl.DataType | None:
    """The type that all of these can have without a loss: in doubt text."""
    if len(dtypes) == 1:
        return dtypes[0]
    units = {getattr(dtype, "time_unit", "ms") for dtype in dtypes}
    finest = next((unit for unit in PRECISIONS if unit in units), PRECISIONS[-1])
    if all(isinstance(dtype, pl.Duration) for dtype in dtypes):
        return pl.Duration(finest)
    if all(isinstance(dtype, (pl.Date, pl.Datetime)) for dtype in dtypes):
        return pl.Datetime(finest)
    if all(is_list_of_labels(dtype) for dtype in dtypes):
        return LABELS
    return pl.String() if all(has_text(dtype) for dtype in dtypes) else None
