"""Preparation: filters, split, vocabularies from the training part; frames become arrays of indices."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from twotower.data.frames import Frames
from twotower.data.splits import TEST, TRAIN, VAL, leave_last_out
from twotower.types import Feature, Schema, UserError, check_number

GROUPS = ("head", "middle", "tail")


class Prepared(NamedTuple):
    """Indices instead of raw ids.

    Attributes:
        arrays: name -> array; ``interactions/*`` sorted by user, time, file order, ``user/*`` and ``item/*`` feature tables.
        meta: plain values: schema, categories, counts, note.
    """

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


class Options(NamedTuple):
    """Decisions of preparation.

    Attributes:
        min_value: interactions with a lower rating are dropped; None keeps all.
        k_core: drop users and items with fewer interactions, again and again until none is left to drop; 0 keeps all.
        history_length: width of the history feature; 0 leaves it out.
        group_shares: categories, largest first, are ``head`` until they hold this share of training interactions, then
            ``middle`` until they hold the second share, then ``tail``.
    """

    min_value: float | None
    k_core: int
    history_length: int
    group_shares: tuple[float, float]

    def check(self) -> None:
        """Refuse values out of range."""
        if self.min_value is not None:
            check_number("data.min_value", self.min_value)
        check_number("data.k_core", self.k_core, 0)
        check_number("data.history_length", self.history_length, 0, 10_000)
        if len(self.group_shares) != 2 or not 0 < self.group_shares[0] <= self.group_shares[1] <= 1:
            raise UserError(f"data.group_shares must be two ascending shares in (0, 1], got {list(self.group_shares)}")


def prepare(frames: Frames, options: Options) -> Prepared:
    """Filter, split and index.

    Raises:
        UserError: if the filters leave nothing to train or to test on.
    """
    interactions = filter_interactions(frames.interactions, options)
    part = leave_last_out(interactions["user"].to_numpy())
    interactions = interactions.with_columns(part=part)
    train = interactions.filter(pl.col("part") == TRAIN)
    users, num_train_users = _vocabulary(interactions["user"], train["user"])
    items, num_train_items = _vocabulary(interactions["item"], train["item"])
    indexed = (
        interactions.with_columns(
            user=pl.col("user").replace_strict(users, np.arange(len(users)), return_dtype=pl.Int32),
            item=pl.col("item").replace_strict(items, np.arange(len(items)), return_dtype=pl.Int32),
        )
        .sort("user", maintain_order=True)
    )  # fmt: skip
    arrays = _interaction_arrays(indexed, len(users))
    user_features, user_arrays = _features(users, num_train_users, frames.users, "user", frames.user_features)
    item_features, item_arrays = _features(items, num_train_items, frames.items, "item", frames.item_features)
    if options.history_length > 0:
        user_features.append(Feature("history", "history", num_train_items + 1))
    count = np.bincount(indexed.filter(pl.col("part") == TRAIN)["item"].to_numpy(), minlength=len(items))
    category, names = _categories(items, frames.items)
    arrays |= {f"user/{name}": array for name, array in user_arrays.items()}
    arrays |= {f"item/{name}": array for name, array in item_arrays.items()}
    arrays |= {"raw/user": users.to_numpy(), "raw/item": items.to_numpy(), "category": category}
    arrays["group"] = _groups(category, count, len(names), options.group_shares)
    for side, (ids, truth) in (frames.latents or {}).items():
        vocabulary = users if side == "user" else items
        row = (
            pl.DataFrame({side: vocabulary})
            .join(pl.DataFrame({side: ids, "row": np.arange(len(ids))}), on=side, how="left", maintain_order="left")["row"]
            .to_numpy()
        )
        arrays[f"latent/{side}"] = truth.to_numpy()[row].astype(np.float32)
    schema = Schema(tuple(user_features), tuple(item_features), len(items), num_train_items, len(names))
    meta = {
        "schema": schema.plain(),
        "categories": names,
        "note": frames.note,
        "num_users": len(users),
        "num_interactions": len(indexed),
        "num_raw_interactions": len(frames.interactions),
    }
    return Prepared(arrays, meta)


def filter_interactions(interactions: pl.DataFrame, options: Options) -> pl.DataFrame:
    """Threshold, k-core, and the order of everything after: user, time, file order.

    Raises:
        UserError: if nothing is left.
    """
    kept = interactions
    if options.min_value is not None:
        kept = kept.filter(pl.col("value") >= options.min_value)
    while options.k_core > 1:
        enough = (pl.len().over("user") >= options.k_core) & (pl.len().over("item") >= options.k_core)
        smaller = kept.filter(enough)
        if len(smaller) == len(kept):
            break
        kept = smaller
    if kept.is_empty():
        raise UserError(
            f"no interaction is left of {len(interactions):,} after data.min_value={options.min_value} and "
            f"data.k_core={options.k_core}: lower them"
        )
    return kept.sort("user", "time", maintain_order=True)


def _vocabulary(all_ids: pl.Series, train_ids: pl.Series) -> tuple[pl.Series, int]:
    """Distinct ids, those of the training part first, each part sorted; and how many have training rows."""
    train = train_ids.unique().sort()
    cold = all_ids.unique().sort()
    cold = cold.filter(~cold.is_in(train.implode()))
    return train.append(cold), len(train_ids.unique())


def _interaction_arrays(indexed: pl.DataFrame, num_users: int) -> dict[str, np.ndarray]:
    user, part = indexed["user"].to_numpy(), indexed["part"].to_numpy()
    parts = {"train": TRAIN, "val": VAL, "test": TEST}
    positions = {f"position/{name}": np.flatnonzero(part == value) for name, value in parts.items()}
    for name, position in positions.items():
        if len(position) == 0:
            raise UserError(
                f"the data leave nothing for {name.split('/')[1]}: users need at least 3 interactions; lower data.k_core"
            )
    return {
        "interactions/user": user,
        "interactions/item": indexed["item"].to_numpy(),
        "offset": np.searchsorted(user, np.arange(num_users + 1)),
        **positions,
    }


def _features(
    ids: pl.Series, num_train: int, table: pl.DataFrame, side: str, kinds: dict[str, Any]
) -> tuple[list[Feature], dict[str, np.ndarray]]:
    """One side's feature tables, in the order of ``ids``; vocabularies and statistics from the first ``num_train`` rows."""
    id_name = f"{side}_id"
    id_index = np.arange(1, len(ids) + 1, dtype=np.int32)
    id_index[num_train:] = 0
    features = [Feature(id_name, "categorical", num_train + 1)]
    arrays = {id_name: id_index}
    table = pl.DataFrame({side: ids}).join(table, on=side, how="left", maintain_order="left")
    for name, kind in kinds.items():
        encode = {"categorical": _categorical, "multi": _multi, "numeric": _numeric}[kind]
        arrays[name], num_values = encode(table[name], num_train)
        features.append(Feature(name, kind, num_values))
    return features, arrays


def _indices(values: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """1-based vocabulary index, 0 for unknown and missing."""
    return values.replace_strict(vocabulary, np.arange(1, len(vocabulary) + 1), default=0, return_dtype=pl.Int32).fill_null(0)


def _categorical(column: pl.Series, num_train: int) -> tuple[np.ndarray, int]:
    vocabulary = column[:num_train].drop_nulls().unique().sort()
    return _indices(column, vocabulary).to_numpy(), len(vocabulary) + 1


def _multi(column: pl.Series, num_train: int) -> tuple[np.ndarray, int]:
    vocabulary = column[:num_train].explode().drop_nulls().unique().sort()
    width = max(1, int(column.list.len().fill_null(0).to_numpy().max(initial=1)))
    row = np.repeat(np.arange(len(column)), column.list.len().fill_null(0).to_numpy())
    value = _indices(column.filter(column.list.len() > 0).explode(), vocabulary).to_numpy()
    place = np.arange(len(row)) - np.searchsorted(row, row)
    table = np.zeros((len(column), width), dtype=np.int32)
    table[row, place] = value
    return table, len(vocabulary) + 1


def _numeric(column: pl.Series, num_train: int) -> tuple[np.ndarray, int]:
    """Standardised by the training rows; missing values become the mean."""
    train = column[:num_train].cast(pl.Float64).drop_nulls().drop_nans()
    mean, std = (float(train.to_numpy().mean()), float(train.to_numpy().std()) or 1.0) if len(train) else (0.0, 1.0)
    scaled = (column.cast(pl.Float64).fill_nan(None).fill_null(mean) - mean) / std
    return scaled.to_numpy().astype(np.float32), 0


def _categories(items: pl.Series, table: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Category index of each item, -1 for missing, and the names."""
    column = pl.DataFrame({"item": items}).join(table, on="item", how="left", maintain_order="left")["category"]
    names = column.drop_nulls().unique().sort()
    return _indices(column, names).to_numpy() - 1, names.cast(pl.String).to_list()


def _groups(category: np.ndarray, count: np.ndarray, num_categories: int, shares: tuple[float, float]) -> np.ndarray:
    """0 head, 1 middle, 2 tail of each item's category by training share; -1 without a category."""
    known = category >= 0
    size = np.bincount(category[known], count[known], minlength=num_categories)
    largest_first = np.argsort(-size, kind="stable")
    before = np.zeros(num_categories)
    before[largest_first] = (size[largest_first].cumsum() - size[largest_first]) / max(1, size.sum())
    group_of_category = np.searchsorted(np.asarray(shares), before, side="right")
    return np.where(known, group_of_category[category] if num_categories else -1, -1).astype(np.int8)
