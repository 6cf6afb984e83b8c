"""Preparation of raw tables: ids become numbers, then filters, split, vocabularies and arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from twotower.data.frames import Frames
from twotower.data.prepare import features
from twotower.data.prepare.context import PREFIX as PREFIX_CONTEXT
from twotower.data.prepare.context import encode_context
from twotower.data.prepare.events import event_features, time_gaps
from twotower.data.prepare.filters import check_interactions, filter_interactions
from twotower.data.prepare.left_out import PREFIX, left_out, remark
from twotower.data.prepare.options import Options
from twotower.data.prepare.shown import shown_items
from twotower.data.prepare.times import PARTS, seconds, times_of
from twotower.data.prepare.weights import scaled_weights
from twotower.data.splits import NOWHERE, TRAIN, Rows, held_out
from twotower.errors import UserError
from twotower.types import Feature, Schema


class Prepared(NamedTuple):
    """Indices instead of raw ids.

    Attributes:
        arrays: ``interactions/*`` sorted by user, part, time and file order; ``position/train`` of
            training interactions; ``position/val`` and ``position/test`` of each user's first
            target, ``targets/*`` the number of targets from there on; ``user/*`` and ``item/*``
            feature tables.
        tables: ``user`` and ``item``: raw ids, category and title, one row per index;
            ``left_out_user`` and ``left_out_item``, see
            :func:`~twotower.data.prepare.left_out.left_out`.
        meta: plain values: schema, categories, counts, note.
        encodings: ``user/*`` and ``item/*``: the numbers of a feature's raw values, see
            :func:`~twotower.data.prepare.features.encode`.
    """

    arrays: dict[str, np.ndarray]
    tables: Mapping[str, pl.DataFrame]
    meta: dict[str, Any]
    encodings: dict[str, pl.DataFrame]


class Side(NamedTuple):
    """Users or items.

    Attributes:
        ids: raw ids, those of the training part first, each part sorted.
        num_train: how many have training rows.
        row: for each code of the filtered interactions its row in ``ids``, -1 for what was dropped.
        feature_row: for each of ``ids`` its row in embedding tables, 0 without training rows.
    """

    ids: pl.Series
    num_train: int
    row: np.ndarray
    feature_row: np.ndarray


def prepare(
    frames: Frames, options: Options, progress: Callable[[str], None] = lambda stage: None
) -> Prepared:
    """Filter, split and index.

    Args:
        frames: a reader's.
        options: decisions.
        progress: called with the name of each stage as it starts.

    Raises:
        UserError: for data that cannot be used, or if nothing is left for training or testing.
    """
    progress("checking")
    check_interactions(frames)
    progress("ids")
    raw = frames.interactions
    user_ids, user_code = _number(raw["user"])
    item_ids, item_code = _number(raw["item"])
    coded = raw.drop("user", "item").with_columns(user=user_code, item=item_code)
    progress("filters")
    coded, dropped = filter_interactions(coded, options.filters)
    progress("split")
    given = coded["part"].to_numpy() if "part" in coded.columns else None
    moments = coded["time"].to_numpy()
    part = options.split(Rows(coded["user"].to_numpy(), moments, frames.time_unit, given))
    if num := int((part == NOWHERE).sum()):
        dropped["held-out interactions of users with less than data.split.min_history"] = num
    coding = (options.numeric_buckets, options.hashes)
    context = encode_context(frames, coded, part == TRAIN, options.clock_context, *coding)
    options.hashes.check_names(frames.user_features, frames.item_features, context.kinds)
    coded = coded.with_columns(context.columns)
    users, items = _side(user_ids, coded["user"], part), _side(item_ids, coded["item"], part)
    if "shown" in coded.columns:
        own = (items.row, items.num_train)
        coded = coded.with_columns(shown_items(coded["shown"], item_ids, *own))
    times = times_of(moments, part, frames.time_unit)
    is_timed = options.history_times or "time_gap" in options.history_features
    wanted = coded if is_timed else coded.drop("time")
    interactions = _sorted_by_part(wanted, part, users, items)
    progress("features")
    targets = getattr(options.split, "targets", "all")
    arrays = _interaction_arrays(interactions, len(users.ids), targets)
    if options.history_times:
        arrays["interactions/time"] = seconds(interactions["time"].to_numpy(), frames.time_unit)
    if "time_gap" in options.history_features:
        arrays["interactions/time_gap"] = time_gaps(interactions, frames.time_unit)
    user_table = features.align(users.ids, frames.users, "user")
    item_table = features.align(items.ids, frames.items, "item")
    user = features.encode(users.num_train, user_table, "user", frames.user_features, *coding)
    item = features.encode(items.num_train, item_table, "item", frames.item_features, *coding)
    user.features.extend(context.features)
    if options.history_length > 0:
        user.features.append(Feature("history", "history", items.num_train + 1))
    category, names = features.categories(item_table["category"])
    sizes = (len(names), len(frames.behaviours))
    user.features.extend(event_features(options.history_features, *sizes, item.features))
    count = np.bincount(
        arrays["interactions/item"][arrays["position/train"]], minlength=len(items.ids)
    )
    size = features.category_sizes(category, count, len(names))
    group = features.groups(category, size, options.group_shares)
    arrays |= {"user/user_id": users.feature_row, "item/item_id": items.feature_row}
    arrays |= user.arrays | item.arrays | {"category": category, "group": group}
    arrays |= features.latents(frames, {"user": users.ids, "item": items.ids})
    schema = Schema(
        tuple(user.features),
        tuple(item.features),
        len(items.ids),
        items.num_train,
        len(names),
        tuple(size.astype(int).tolist()),
        context=tuple(feature.name for feature in context.features),
    )
    readable = [column for column in ("item", "title", "category") if column in item_table.columns]
    tables = {"user": user_table.select("user"), "item": item_table.select(readable)}
    remarks = list(frames.remarks)
    without: dict[str, int] = {}
    for side, listed, distinct, kept in (
        ("user", frames.users["user"], user_ids, users.ids),
        ("item", frames.items["item"], item_ids, items.ids),
    ):
        rest = left_out(side, listed, distinct, kept)
        tables[f"{PREFIX}{side}"] = rest
        remarks += remark(side, listed, rest)
        without[f"{side}s"] = int((~rest["clicked"]).sum())
    raw_categories = frames.items["category"]
    meta = {
        "schema": schema.plain(),
        "categories": names,
        "behaviours": list(frames.behaviours),
        "note": frames.note,
        "remarks": remarks,
        "without_interactions": without,
        "raw": {
            "interactions": len(raw) + sum((frames.dropped or {}).values()),
            "users": len(user_ids),
            "items": len(item_ids),
            "categories": raw_categories.n_unique() - raw_categories.has_nulls(),
        },
        "dropped": (frames.dropped or {}) | dropped,
        "num_users": len(users.ids),
        "num_train_users": users.num_train,
        "num_interactions": len(interactions),
        "times": times,
    }
    return Prepared(arrays, tables, meta, user.encodings | item.encodings | context.encodings)


def _number(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Distinct ids, sorted, and the place of each row's id among them."""
    distinct = ids.unique().sort()
    return distinct, ids.replace_strict(distinct, np.arange(len(distinct)), return_dtype=pl.Int32)


def _side(ids: pl.Series, code: pl.Series, part: np.ndarray) -> Side:
    """Number users or items, those of training first, so that trained rows come first in tables."""
    codes = code.to_numpy()
    in_train = np.bincount(codes[part == TRAIN], minlength=len(ids)) > 0
    present = np.bincount(codes[part != NOWHERE], minlength=len(ids)) > 0
    order = np.concatenate([np.flatnonzero(in_train), np.flatnonzero(present & ~in_train)])
    row = np.full(len(ids), -1, dtype=np.int32)
    row[order] = np.arange(len(order), dtype=np.int32)
    num_train = int(in_train.sum())
    feature_row = np.arange(1, len(order) + 1, dtype=np.int32)
    feature_row[num_train:] = 0
    return Side(ids[order], num_train, row, feature_row)


def _sorted_by_part(
    coded: pl.DataFrame, part: np.ndarray, users: Side, items: Side
) -> pl.DataFrame:
    """``user``, ``item``, ``part`` and other columns, by user, then part, then time."""
    columns = {
        "user": users.row[coded["user"].to_numpy()],
        "item": items.row[coded["item"].to_numpy()],
        "part": part,
    }
    for name in coded.columns:
        if name in ("behaviour", "weight", "shown", "time") or name.startswith(PREFIX_CONTEXT):
            columns[name] = coded[name].to_numpy()
    interactions = pl.DataFrame(columns)
    if (part == NOWHERE).any():
        interactions = interactions.filter(pl.col("part") != NOWHERE)
    user = interactions["user"].to_numpy().astype(np.int64)
    key = user * len(PARTS) + interactions["part"].to_numpy()
    in_order = bool((key[1:] >= key[:-1]).all())
    return interactions if in_order else interactions.sort("user", "part", maintain_order=True)


def _interaction_arrays(
    interactions: pl.DataFrame, num_users: int, targets: str
) -> dict[str, np.ndarray]:
    user, part = interactions["user"].to_numpy(), interactions["part"].to_numpy()
    offset = np.searchsorted(user, np.arange(num_users + 1))
    arrays = {
        "interactions/user": user,
        "interactions/item": interactions["item"].to_numpy(),
        "offset": offset,
    }
    for name in {"behaviour", "shown"} & set(interactions.columns):
        arrays[f"interactions/{name}"] = interactions[name].to_numpy()
    if "weight" in interactions.columns:
        arrays["interactions/weight"] = scaled_weights(interactions["weight"], part == TRAIN)
    for name in interactions.columns:
        if name.startswith(PREFIX_CONTEXT):
            arrays[name.replace(".", "/", 1)] = interactions[name].to_numpy()
    small = np.int32 if len(user) < 2**31 else np.int64
    for name, value in PARTS.items():
        position = np.flatnonzero(part == value).astype(small)
        if len(position) == 0:
            raise UserError(
                f"the split leaves nothing for {name}: lower data.k_core or "
                "data.split.min_history, or change data.split"
            )
        arrays[f"position/{name}"] = position
    # a user's targets follow one another: the first and their number describe them
    for name in ("val", "test"):
        position = arrays[f"position/{name}"]
        found = held_out(position, user[position], targets)
        arrays[f"position/{name}"], arrays[f"targets/{name}"] = found
    return arrays
