"""Vectors as features: lists of numbers in a table, or in a file of their own beside it."""

from pathlib import Path

import numpy as np
import polars as pl

from twotower.data.own_files.values import LABELS, as_text
from twotower.errors import UserError

MIN_WIDTH = 2
BRACKETS = "[]() "


def as_vectors(column: pl.Series, list_separator: str | None, setting: str) -> pl.Series:
    """Lists of numbers, or text such as ``[0.1, 0.2]`` or ``0.1|0.2``, as vectors of one width.

    Args:
        column: lists, arrays or text; null where there is no vector.
        list_separator: between the numbers in text, in addition to commas and blanks.
        setting: that declares the column, for messages.

    Returns:
        The column as ``pl.Array(pl.Float32, width)``.

    Raises:
        UserError: for other values, several widths, and numbers that are not finite.
    """
    lists = column
    if column.dtype in (pl.String, pl.Null):
        text = column.cast(pl.String).str.strip_chars(BRACKETS)
        for mark in (list_separator or ",", "\t", " "):
            text = text.str.replace_all(mark, ",", literal=True)
        parts = text.str.replace_all(",+", ",").str.split(",")
        lists = parts.list.agg(pl.element().cast(pl.Float64, strict=False))
    elif column.dtype == LABELS:
        lists = column.list.agg(pl.element().cast(pl.Float64, strict=False))
    elif isinstance(column.dtype, pl.Array):
        lists = column.arr.to_list()
    if not isinstance(lists.dtype, pl.List) or not lists.dtype.inner.is_numeric():
        raise UserError(f"{setting}: the column holds no lists of numbers")
    lengths = lists.list.len().drop_nulls().unique().sort().to_list()
    if len(lengths) != 1 or lengths[0] < MIN_WIDTH:
        found = ", ".join(map(str, lengths[:3])) or "none"
        raise UserError(
            f"{setting}: vectors need one width of {MIN_WIDTH} or more, these have {found}"
        )
    vectors = lists.list.agg(pl.element().cast(pl.Float32)).list.to_array(lengths[0])
    return _checked(vectors, setting)


def are_vectors(column: pl.Series) -> bool:
    """Whether a column that nobody declared holds vectors: lists of floats, all of one length."""
    dtype = column.dtype
    if isinstance(dtype, pl.Array):
        return dtype.inner.is_float() and len(dtype.shape) == 1 and dtype.shape[0] >= MIN_WIDTH
    if not isinstance(dtype, pl.List) or not dtype.inner.is_float():
        return False
    lengths = column.list.len().drop_nulls().unique().to_list()
    return len(lengths) == 1 and lengths[0] >= MIN_WIDTH


def read_vectors(setting: str, path: Path, ids: pl.Series) -> pl.Series:
    """The vectors of a table's rows from another file.

    Args:
        setting: that names the file, for messages.
        path: ``.npy`` of shape ``(num_rows, width)`` with the rows of the table in their order, or
            Parquet with a column of ids and one of vectors, in any order.
        ids: of the table's rows.

    Returns:
        ``pl.Array(pl.Float32, width)``, null where the file has none.

    Raises:
        UserError: for files that cannot be read or do not fit the table.
    """
    if path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{setting}: {path} cannot be read ({error})") from error
        if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] < MIN_WIDTH:
            raise UserError(
                f"{setting}: {path} has the shape {array.shape} of {array.dtype}: it must be "
                f"(rows of the table, {MIN_WIDTH} or more) of numbers"
            )
        if len(array) != len(ids):
            raise UserError(
                f"{setting}: {path} has {len(array):,} rows, its table has {len(ids):,}: "
                "they must be the same, in the same order"
            )
        return _checked(pl.Series(np.ascontiguousarray(array, dtype=np.float32)), setting)
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{setting}: {path} cannot be read ({error})") from error
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    plain = [name for name in frame.columns if name not in nested]
    if len(nested) != 1 or len(plain) != 1:
        raise UserError(
            f"{setting}: {path} must have one column of ids and one of vectors, it has "
            f"{', '.join(frame.columns)}"
        )
    vectors = as_vectors(frame[nested[0]], None, setting)
    known = frame.select(id=as_text(pl.col(plain[0]))).with_columns(vectors.alias("vector"))
    if known["id"].is_duplicated().any():
        raise UserError(f"{setting}: {path} has several vectors for one {plain[0]}: keep one")
    wanted = pl.select(id=as_text(pl.lit(ids)))
    return wanted.join(known, on="id", how="left", maintain_order="left")["vector"]


def _checked(vectors: pl.Series, setting: str) -> pl.Series:
    """Refuse missing numbers and infinity within vectors, which would spread to all weights."""
    numbers = vectors.drop_nulls().explode()
    if numbers.has_nulls() or not numbers.is_finite().all():
        raise UserError(
            f"{setting}: some numbers within the vectors are missing or not finite: mend them, or "
            "leave out such a vector as a whole"
        )
    return vectors
