"""Columns of the interactions that tell of the request: device, place, query."""

import polars as pl

from twotower.data.own_files.features import feature_of
from twotower.data.own_files.files import Source
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
        if feature.values.null_count() > column.null_count():
            raise UserError(f"{setting}=numeric holds text that is no number: take categorical")
        kinds[name] = feature.kind
        frame = frame.with_columns(feature.values.alias(column.name))
    return frame, kinds
