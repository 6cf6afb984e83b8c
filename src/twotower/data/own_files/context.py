"""Columns of the interactions that tell of the request: device, place, query."""

import polars as pl

from twotower.data.own_files.features import feature_of
from twotower.data.own_files.files import Source
from twotower.data.own_files.values import LABELS
from twotower.data.prepare.context import PREFIX
from twotower.errors import UserError
from twotower.types import FeatureKind
from twotower.wording import clip

KINDS = ("categorical", "numeric")


def context_roles(source: Source, wanted: list[str]) -> dict[str, str]:
    """The columns by role, ``context.<name>``.

    Raises:
        UserError: for a column that is not there.
    """
    for name in wanted:
        if name not in source.schema:
            listed = ", ".join(clip(known, 40) for known in source.schema)
            raise UserError(
                f"data.reader.context: {source.path} has no column {name}; it has {listed}"
            )
    return {f"{PREFIX}{name}": name for name in wanted}


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


def context_features(
    frame: pl.DataFrame, declared: dict[str, FeatureKind]
) -> tuple[pl.DataFrame, dict[str, FeatureKind]]:
    """The columns of context as labels or numbers, and their kinds.

    Args:
        frame: interactions with columns ``context.<name>``, as the file has them.
        declared: kinds by name, for those that are not inferred.

    Raises:
        UserError: for a column of lists, of one value, or of free text.
    """
    kinds: dict[str, FeatureKind] = {}
    for column in frame.iter_columns():
        if not column.name.startswith(PREFIX):
            continue
        name = column.name.removeprefix(PREFIX)
        setting = f"data.reader.context: {name}"
        feature = feature_of(column.alias(name), declared.get(name), None, setting)
        if feature.kind not in KINDS:
            raise UserError(
                f"{setting} cannot tell of a request ({feature.meaning}): take a column of labels "
                "or numbers, or leave it out"
            )
        kinds[name] = feature.kind
        frame = frame.with_columns(feature.values.alias(column.name))
    return frame, kinds
