"""Feature tables with one row per user or item; vocabularies come from the training rows."""

from typing import NamedTuple

import numpy as np
import polars as pl

from twotower.data.frames import Frames
from twotower.data.prepare.hashing import KINDS, NO_HASHES, Hashes, hashed_column
from twotower.data.prepare.lists import places
from twotower.types import HASHES, Feature, FeatureKind


class Encoded(NamedTuple):
    """The features of one side.

    Attributes:
        features: name, kind and number of values of each.
        arrays: ``<side>/<feature>``, of all but the id: values, one row per user or item.
        encodings: ``<side>/<feature>``, of the same features, the numbers of raw values: a table
            with ``value`` of the indices from 1 on, or with ``mean`` and ``std`` (of a vector a row
            for each number), or with the inner ``edge`` of buckets, or with ``buckets`` and
            ``hashes`` of :func:`~twotower.data.prepare.hashing.hash_numbers`.
    """

    features: list[Feature]
    arrays: dict[str, np.ndarray]
    encodings: dict[str, pl.DataFrame]


def encode(
    num_train: int,
    table: pl.DataFrame,
    side: str,
    kinds: dict[str, FeatureKind],
    num_buckets: int | None = None,
    hashes: Hashes = NO_HASHES,
) -> Encoded:
    """Turn one side's features into numbers, except the ids, which are numbered already.

    Args:
        num_train: rows that vocabularies and statistics come from.
        table: raw values, one row per user or item, those of training first.
        side: ``user`` or ``item``.
        kinds: of the columns that are features.
        num_buckets: of numbers, by quantiles of the training rows; they are then categorical. None:
            numbers are standardised.
        hashes: of features whose values never end. Hashed ids are a feature beside the id's own
            number.
    """
    features = [Feature(f"{side}_id", "categorical", num_train + 1)]
    arrays, encodings = {}, {}
    columns = {name: table[name] for name in kinds}
    labels = [name for name, kind in kinds.items() if kind in KINDS]
    hashed = {name: name for name in labels if name in hashes.buckets}
    if side in table.columns and f"{side}_id" in hashes.buckets:
        columns = {HASHES[f"{side}_id"]: table[side], **columns}
        hashed[HASHES[f"{side}_id"]] = f"{side}_id"
    for name, column in columns.items():
        key, kind = f"{side}/{name}", kinds.get(name, "multi")
        if name in hashed:
            kind, encoded = "multi", _hashed(column, hashes.encoding(hashed[name]))
        elif kind == "numeric" and num_buckets is not None:
            kind, encoded = "categorical", _buckets(column, num_train, num_buckets)
        else:
            encoded = ENCODERS[kind](column, num_train)
        arrays[key], num_values, encodings[key] = encoded
        features.append(Feature(name, kind, num_values))
    return Encoded(features, arrays, encodings)


def align(ids: pl.Series, table: pl.DataFrame, side: str) -> pl.DataFrame:
    """Rows of ``table`` in the order of ``ids``, null where it has none."""
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
    """0 head, 1 middle, 2 tail of each item's category by ``size``; -1 without a category."""
    order = np.argsort(-size, kind="stable")
    before = np.zeros(len(size))  # share of the larger categories
    before[order] = (size[order].cumsum() - size[order]) / max(1, size.sum())
    group_of = np.searchsorted(np.asarray(shares), before, side="right")
    group = np.full(len(category), -1, dtype=np.int8)
    known = category >= 0
    group[known] = group_of[category[known]]
    return group


def latents(frames: Frames, ids: dict[str, pl.Series]) -> dict[str, np.ndarray]:
    """The planted truth of synthetic data, in the order of the prepared ``ids`` of each side."""
    arrays = {}
    for side, (given, truth) in (frames.latents or {}).items():
        rows = pl.DataFrame({side: given, "row": np.arange(len(given))})
        row = align(ids[side], rows, side)["row"].to_numpy()
        arrays[f"latent/{side}"] = truth.to_numpy()[row].astype(np.float32)
    return arrays


def _indices(values: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """1-based vocabulary index, 0 for unknown and missing."""
    index, kind = np.arange(1, len(vocabulary) + 1), pl.Int32
    number: pl.Series = values.replace_strict(vocabulary, index, default=0, return_dtype=kind)
    return number.fill_null(0)


def _categorical(column: pl.Series, num_train: int) -> tuple[np.ndarray, int, pl.DataFrame]:
    vocabulary = column[:num_train].drop_nulls().unique().sort()
    values = pl.DataFrame({"value": vocabulary})
    return _indices(column, vocabulary).to_numpy(), len(vocabulary) + 1, values


def _multi(column: pl.Series, num_train: int) -> tuple[np.ndarray, int, pl.DataFrame]:
    vocabulary = column[:num_train].explode().drop_nulls().unique().sort()
    length = column.list.len().fill_null(0).to_numpy()
    width = max(1, int(length.max(initial=1)))
    value = _indices(column.filter(column.list.len() > 0).explode(), vocabulary).to_numpy()
    table = np.zeros((len(column), width), dtype=np.int32)
    table[places(length)] = value
    return table, len(vocabulary) + 1, pl.DataFrame({"value": vocabulary})


def _hashed(column: pl.Series, encoding: pl.DataFrame) -> tuple[np.ndarray, int, pl.DataFrame]:
    return hashed_column(column, encoding), encoding["buckets"][0] + 1, encoding


def _numeric(column: pl.Series, num_train: int) -> tuple[np.ndarray, int, pl.DataFrame]:
    """Standardised by the training rows; missing values become the mean."""
    train = column[:num_train].cast(pl.Float64).drop_nulls().drop_nans()
    mean, std = 0.0, 1.0
    if len(train):
        mean, std = float(train.to_numpy().mean()), float(train.to_numpy().std()) or 1.0
    scaled = (column.cast(pl.Float64).fill_nan(None).fill_null(mean) - mean) / std
    return scaled.to_numpy().astype(np.float32), 0, pl.DataFrame({"mean": [mean], "std": [std]})


def _buckets(
    column: pl.Series, num_train: int, num_buckets: int
) -> tuple[np.ndarray, int, pl.DataFrame]:
    """Buckets from 1 on with as many training rows each, 0 for missing ones.

    Fewer than ``num_buckets`` where a value is so frequent that it would be on two edges.
    """
    value = column.cast(pl.Float64).fill_nan(None)
    train = value[:num_train].drop_nulls().to_numpy()
    shares = np.arange(1, num_buckets) / num_buckets
    edge = np.unique(np.quantile(train, shares)) if len(train) else np.empty(0)
    edges = pl.DataFrame({"edge": edge}, schema={"edge": pl.Float64})
    return bucket_of(value.to_numpy(), edges), len(edge) + 2, edges


def bucket_of(value: np.ndarray, edges: pl.DataFrame) -> np.ndarray:
    """``1 +`` number of edges at or below each value, 0 for NaN: ``(num,)``.

    Args:
        value: ``(num,)``.
        edges: with ``edge``, ascending.
    """
    place = 1 + np.searchsorted(edges["edge"].to_numpy(), value, side="right")
    return np.where(np.isnan(value), 0, place).astype(np.int32)


def _vector(column: pl.Series, num_train: int) -> tuple[np.ndarray, int, pl.DataFrame]:
    """Centred, and divided by one number: directions stay. Missing vectors become the mean."""
    assert isinstance(column.dtype, pl.Array)
    width = column.dtype.shape[0]
    known = column.is_not_null().to_numpy()
    values = np.zeros((len(column), width), dtype=np.float32)
    values[known] = column.drop_nulls().to_numpy()
    train = values[:num_train][known[:num_train]]
    mean, std = np.zeros(width), 1.0
    if len(train):
        mean = train.mean(0, dtype=np.float64)
        std = float(np.sqrt(((train - mean) ** 2).mean())) or 1.0
    values[known] = (values[known] - mean) / std
    return values, width, pl.DataFrame({"mean": mean, "std": np.full(width, std)})


ENCODERS = {"categorical": _categorical, "multi": _multi, "numeric": _numeric, "vector": _vector}
