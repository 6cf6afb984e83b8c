"""Vectors, users and vocabularies as Parquet."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
from torch import Tensor

from twotower.data.batches.features import OF_THE_EVENT, item_labels
from twotower.data.batches.present import present_features, present_seen
from twotower.data.datamodule import RetrievalDataModule
from twotower.export.towers import as_inputs, input_name
from twotower.retrieval import exact
from twotower.types import Model

CHUNK = 8192  # users in memory at a time
OLDEST = pl.CompatLevel.oldest()  # types that every reader of Parquet knows
CPU = torch.device("cpu")


@torch.no_grad()
def write_items(model: Model, data: RetrievalDataModule, folder: Path) -> Tensor:
    """``item_vectors.parquet``: a row of the index is the same row here.

    Columns are raw id, vector, category and, if the data have them, title and ``features``: the
    labels that a history has of the item, by the user tower's inputs. Some items are in memory at
    a time.

    Returns:
        ``(num_items, dim)`` the same vectors, mapped from a file without a name in ``folder``, that
        goes with the last reference to them, or with the process.

    Raises:
        OSError: if the disk is full.
    """
    raw = data.ids["item"].select("item", "^category$", "^title$")
    with TemporaryFile(dir=folder) as file:

        def rows() -> Iterator[pl.DataFrame]:
            start = 0
            for vectors in exact.encode_blocks(model, data.corpus(CPU)):
                # not through the mapping, where a full disk would be a signal and no error
                file.write(vectors.numpy().data)
                table = _plain(raw[start : start + len(vectors)])
                table = table.insert_column(1, _column("vector", vectors))
                labels = _labels(data, start, start + len(vectors))
                yield table.with_columns(labels.to_struct("features")) if labels.width else table
                start += len(vectors)

        _write(folder / "item_vectors.parquet", rows())
        file.flush()
        return torch.from_numpy(np.memmap(file, np.float32, "r+")).view(len(raw), -1)


def _labels(data: RetrievalDataModule, start: int, end: int) -> pl.DataFrame:
    """``history_<label>`` of each item; no columns without labels in histories."""
    names = [own.name for own in data.schema.user if own.kind == "event"]
    item, columns = torch.arange(start, end), []
    for name in names:
        label = name.removeprefix("history_")
        if label not in OF_THE_EVENT:
            columns.append(_column(name, item_labels(data.tables, label, item)))
    return pl.DataFrame(columns)


@torch.no_grad()
def write_user_vectors(model: Model, data: RetrievalDataModule, folder: Path) -> None:
    """``user_vectors.parquet``: raw id and vector; several interests one after another.

    Some users are in memory at a time.
    """
    raw = _plain(data.ids["user"].select("user"))

    def rows(users: Tensor) -> pl.DataFrame:
        vectors = exact.encode_users(model, present_features(data, users))
        return raw[users.numpy()].with_columns(_column("vector", vectors.flatten(1)))

    users = torch.arange(len(raw))
    _write(folder / "user_vectors.parquet", map(rows, users.split(CHUNK)))


def write_users(data: RetrievalDataModule, names: list[str], folder: Path) -> None:
    """``users.parquet``: raw id, inputs of the user tower as of today, and rows of seen items.

    Some users are in memory at a time.

    Args:
        data: the data module.
        names: of the user tower's inputs.
        folder: where.
    """
    raw = _plain(data.ids["user"].select("user"))

    def rows(users: Tensor) -> pl.DataFrame:
        inputs = as_inputs(present_features(data, users)).items()
        columns = [
            _column(input_name(feature), value)
            for feature, value in inputs
            if input_name(feature) in names
        ]
        seen = [items.numpy() for items in present_seen(data, users)]
        return raw[users.numpy()].with_columns(
            pl.DataFrame(columns).to_struct("features"), pl.Series("seen", seen, pl.List(pl.Int64))
        )

    by_id = torch.from_numpy(raw["user"].arg_sort().to_numpy().astype(np.int64))
    _write(folder / "users.parquet", map(rows, by_id.split(CHUNK)))


def write_vocabularies(data: RetrievalDataModule, folder: Path) -> dict[str, dict[str, float]]:
    """``vocabularies/<side>.<feature>.parquet``: raw value and index.

    Of buckets, where each begins and its index; of a vector, mean and std of each number.

    Returns:
        ``mean`` and ``std`` of each numeric feature, by ``<side>.<feature>``.
    """
    (folder / "vocabularies").mkdir()
    num_train = {"user": data.meta["num_train_users"], "item": data.schema.num_train_items}
    encodings = dict(data.encodings)
    for side, num in num_train.items():
        encodings[f"{side}/{side}_id"] = data.ids[side].select(value=side).head(num)
    events = {"history_category": "categories", "history_behaviour": "behaviours"}
    for feature in data.schema.user:
        if feature.name in events:
            names = pl.Series(data.meta[events[feature.name]], dtype=pl.String)
            encodings[f"user/{feature.name}"] = pl.DataFrame({"value": names})
    numeric = {}
    for key, table in encodings.items():
        name = key.replace("/", ".")
        if "value" in table.columns:
            table = _plain(table).with_columns(index=pl.int_range(1, pl.len() + 1))
        elif "edge" in table.columns:
            begins = pl.concat([pl.Series("from", [float("-inf")]), table["edge"]])
            table = begins.to_frame().with_columns(index=pl.int_range(1, pl.len() + 1))
        if "index" in table.columns or len(table) > 1:
            table.write_parquet(folder / "vocabularies" / f"{name}.parquet")
        else:
            numeric[name] = table.row(0, named=True)
    return numeric


def _write(path: Path, tables: Iterable[pl.DataFrame]) -> None:
    """Write tables of the same columns below each other, a row group for each."""
    with ExitStack() as stack:
        writer = None
        for frame in tables:
            table = frame.to_arrow(compat_level=OLDEST)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)


def _column(name: str, value: Tensor) -> pl.Series:
    """A column of numbers, or of arrays of fixed width."""
    if value.ndim == 1:
        return pl.Series(name, value.numpy())
    inner = pl.Float32 if value.is_floating_point() else pl.Int64
    return pl.Series(name, value.numpy(), dtype=pl.Array(inner, tuple(value.shape[1:])))


def _plain(table: pl.DataFrame) -> pl.DataFrame:
    """Strings instead of enumerations, which only Polars and Arrow read."""
    return table.with_columns(pl.col(pl.Enum, pl.Categorical).cast(pl.String))
