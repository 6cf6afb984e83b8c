"""Feature tables: vocabularies and statistics from the training rows, one row per user or item."""

from typing import Any

import numpy as np
import polars as pl

from twotower.types import Feature


def encode(
    ids: pl.Series, num_train: int, table: pl.DataFrame, side: str, kinds: dict[str, Any]
) -> tuple[list[Feature], dict[str, np.ndarray], dict[str, pl.DataFrame]]:
    """One side's features, their tables in the order of ``ids``, and how raw values become numbers.

    Vocabularies and statistics come from the first ``num_train`` rows. The last of the three, of all features but the id, are
    tables too: ``value`` of the indices from 1 on, or ``mean`` and ``std``.
    """
    id_name = f"{side}_id"
    id_index = np.arange(1, len(ids) + 1, dtype=np.int32)
    id_index[num_train:] = 0
    features = [Feature(id_name, "categorical", num_train + 1)]
    arrays = {id_name: id_index}
    encodings = {}
    for name, kind in kinds.items():
        encode_column = {"categorical": _categorical, "multi": _multi, "numeric": _numeric}[kind]
        arrays[name], num_values, encodings[name] = encode_column(table[name], num_train)
        features.append(Feature(name, kind, num_values))
    return features, arrays, encodings


def align(ids: pl.Series, table: pl.DataFrame, side: str) -> pl.DataFrame:
    """Rows of ``table`` in the order of ``ids``, null where it has none; ids are compared as the text they are."""
    if table[side].dtype != ids.dtype:
        table = table.with_columns(pl.col(side).cast(ids.dtype, strict=False))
    return pl.DataFrame({side: ids}).join(table, on=side, how="left", maintain_order="left")


def categories(column: pl.Series) -> tuple[np.ndarray, list[str]]:
    """Category index of each item, -1 for missing, and the names."""
    names = column.drop_nulls().unique().sort()
    return _indices(column, names).to_numpy() - 1, names.cast(pl.String).to_list()


def category_sizes(category: np.ndarray, count: np.ndarray, num_categories: int) -> np.ndarray:
    """``(num_categories,)`` sums of ``count`` over each category's items."""
    known = category >= 0
    return np.bincount(category[known], count[known], minlength=num_categories)


def groups(category: np.ndarray, size: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    """0 head, 1 middle, 2 tail of each item's category by its share of ``size``; -1 without a category."""
    largest_first = np.argsort(-size, kind="stable")
    before = np.zeros(len(size))
    before[largest_first] = (size[largest_first].cumsum() - size[largest_first]) / max(
        1, size.sum()
    )
    group_of_category = np.searchsorted(np.asarray(shares), before, side="right")
    return np.where(category >= 0, group_of_category[category] if len(size) else -1, -1).astype(
        np.int8
    )


def _indices(values: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """1-based vocabulary index, 0 for unknown and missing."""
    return values.replace_strict(
        vocabulary, np.arange(1, len(vocabulary) + 1), default=0, return_dtype=pl.Int32
    ).fill_null(0)


def _categorical(column: pl.Series, num_train: int) -> tuple[np.ndarray, int, pl.DataFrame]:
    vocabulary = column[:num_train].drop_nulls().unique().sort()
    return (
        _indices(column, vocabulary).to_numpy(),
        len(vocabulary) + 1,
        pl.DataFrame({"value": vocabulary}),
    )


def _multi(column: pl.Series, num_train: int) -> tuple[np.ndarray, int, pl.DataFrame]:
    vocabulary = column[:num_train].explode().drop_nulls().unique().sort()
    width = max(1, int(column.list.len().fill_null(0).to_numpy().max(initial=1)))
    row = np.repeat(np.arange(len(column)), column.list.len().fill_null(0).to_numpy())
    value = _indices(column.filter(column.list.len() > 0).explode(), vocabulary).to_numpy()
    place = np.arange(len(row)) - np.searchsorted(row, row)
    table = np.zeros((len(column), width), dtype=np.int32)
    table[row, place] = value
    return table, len(vocabulary) + 1, pl.DataFrame({"value": vocabulary})


def _numeric(column: pl.Series, num_train: int) -> tuple[np.ndarray, int, pl.DataFrame]:
    """Standardised by the training rows; missing values become the mean."""
    train = column[:num_train].cast(pl.Float64).drop_nulls().drop_nans()
    mean, std = (
        (float(train.to_numpy().mean()), float(train.to_numpy().std()) or 1.0)
        if len(train)
        else (0.0, 1.0)
    )
    scaled = (column.cast(pl.Float64).fill_nan(None).fill_null(mean) - mean) / std
    return scaled.to_numpy().astype(np.float32), 0, pl.DataFrame({"mean": [mean], "std": [std]})
