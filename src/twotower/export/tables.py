"""Vectors, users and vocabularies as Parquet; row ``i`` of an item table is item ``i`` of the index."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from twotower.data.batches.present import present_features, present_seen
from twotower.data.datamodule import RetrievalDataModule
from twotower.export.towers import as_inputs, input_name
from twotower.retrieval import encode
from twotower.types import Model

CHUNK = 8192
CPU = torch.device("cpu")


@torch.no_grad()
def encode_items(model: Model, data: RetrievalDataModule) -> Tensor:
    """``(num_items, dim)`` vectors of the corpus."""
    return encode.encode_corpus(model, data.corpus(CPU))


@torch.no_grad()
def encode_users(model: Model, data: RetrievalDataModule) -> Tensor:
    """``(num_users, dim)``, or ``(num_users, num_interests, dim)``: all users as they are now."""
    users = torch.arange(data.meta["num_users"])
    chunks = (present_features(data, user) for user in users.split(CHUNK))
    return torch.cat([encode.encode_users(model, features) for features in chunks])


def write_items(data: RetrievalDataModule, vectors: Tensor, folder: Path) -> None:
    """``item_vectors.parquet``: raw id, vector, category and, where the data have one, title."""
    table = data.ids["item"]
    names = [column for column in ("category", "title") if column in table.columns]
    _plain(table.select("item", *names)).insert_column(1, _fixed("vector", vectors)).write_parquet(
        folder / "item_vectors.parquet"
    )


def write_user_vectors(data: RetrievalDataModule, vectors: Tensor, folder: Path) -> None:
    """``user_vectors.parquet``: raw id and vector; of several interests, one after another."""
    table = _plain(data.ids["user"].select("user"))
    table.with_columns(_fixed("vector", vectors.flatten(1))).write_parquet(
        folder / "user_vectors.parquet"
    )


def write_users(data: RetrievalDataModule, names: list[str], folder: Path) -> None:
    """``users.parquet``: raw id, the user tower's inputs as they are now, and rows of the items that the user has seen."""
    users = torch.arange(data.meta["num_users"])
    features = as_inputs(
        {
            name: value
            for name, value in present_features(data, users).items()
            if input_name(name) in names
        }
    )
    columns = [_column(input_name(name), value) for name, value in features.items()]
    seen = pl.Series(
        "seen", [items.numpy() for items in present_seen(data, users)], dtype=pl.List(pl.Int64)
    )
    table = _plain(data.ids["user"].select("user"))
    table = table.with_columns(pl.DataFrame(columns).to_struct("features"), seen)
    table.sort("user").write_parquet(folder / "users.parquet", row_group_size=CHUNK)


def write_vocabularies(data: RetrievalDataModule, folder: Path) -> dict[str, dict[str, float]]:
    """``vocabularies/<side>.<feature>.parquet``: raw value and index of each id, category and tag that training saw.

    Returns:
        ``mean`` and ``std`` of each numeric feature, by ``<side>.<feature>``.
    """
    (folder / "vocabularies").mkdir()
    numbers = {}
    num_train = {"user": data.meta["num_train_users"], "item": data.schema.num_train_items}
    encodings = {
        f"{side}/{side}_id": data.ids[side].select(value=side).head(num)
        for side, num in num_train.items()
    }
    for name, table in {**encodings, **data.encodings}.items():
        name = name.replace("/", ".")
        if "value" in table.columns:
            index = pl.Series("index", np.arange(1, len(table) + 1))
            _plain(table).with_columns(index).write_parquet(
                folder / "vocabularies" / f"{name}.parquet"
            )
        else:
            numbers[name] = table.row(0, named=True)
    return numbers


def _fixed(name: str, vectors: Tensor) -> pl.Series:
    return pl.Series(name, vectors.numpy(), dtype=pl.Array(pl.Float32, vectors.shape[1]))


def _column(name: str, value: Tensor) -> pl.Series:
    array = value.numpy()
    return (
        pl.Series(name, array)
        if array.ndim == 1
        else pl.Series(name, array, dtype=pl.Array(pl.Int64, array.shape[1]))
    )


def _plain(table: pl.DataFrame) -> pl.DataFrame:
    """Text instead of the enumerations that only Polars and Arrow know."""
    return table.with_columns(pl.col(pl.Enum, pl.Categorical).cast(pl.String))
