"""Lists of the items that were shown beside the chosen one."""

import polars as pl

from twotower.data.own_files.values import LABELS


def with_shown(frame: pl.DataFrame, list_separator: str | None) -> pl.DataFrame:
    """``shown``, if there is such a column, as lists of ids like those of ``item``."""
    if "shown" not in frame.columns:
        return frame
    shown, kind = frame["shown"], frame["item"].dtype
    if shown.dtype != LABELS:
        parts = shown.cast(pl.String).str.split(list_separator or "|")
        shown = parts.list.agg(pl.element().str.strip_chars())
    ids = shown.list.agg(pl.element().cast(kind, strict=False).drop_nulls())
    return frame.with_columns(ids.alias("shown"))
