"""Tables that have several rows for one id."""

import polars as pl

from twotower.data.own_files.files import Source
from twotower.errors import UserError
from twotower.types import FeatureKind
from twotower.wording import clip


def one_row_each(
    source: Source, frame: pl.DataFrame, side: str, kinds: dict[str, FeatureKind]
) -> pl.DataFrame:
    """Drop rows that repeat another one.

    Args:
        source: the files of the table, for messages.
        frame: the ids and the features.
        side: ``user`` or ``item``, the column of the ids.
        kinds: of the features.

    Raises:
        UserError: for rows of one id with different features.
    """
    repeated = frame.filter(pl.col(side).is_duplicated())
    for name in kinds:
        pairs = repeated.select(side, name).unique(maintain_order=True)
        several = pairs.filter(pl.col(side).is_duplicated())
        if len(several):
            first = several[side][0]
            values = several.filter(pl.col(side) == first)[name]
            one, two = (clip(str(value), 30) for value in values.head(2).to_list())
            raise UserError(
                f"{source.path} has several rows that differ for {several[side].n_unique():,} "
                f"{side}s: {side} {clip(str(first), 40)!r} has the {name} {one!r} and {two!r}: "
                f"keep one row per {side}, or leave the column out, data.reader.ignore=[{name}]"
            )
    return frame.unique(side, keep="first", maintain_order=True)
