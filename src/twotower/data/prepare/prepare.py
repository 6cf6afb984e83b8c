"""Preparation of raw tables: ids become numbers, then filters, split, vocabularies and arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from twotower.data import blocks
from twotower.data.blocks import Storage, counts
from twotower.data.frames import Frames
from twotower.data.prepare import features
from twotower.data.prepare.coding import IN_MEMORY, Engine
from twotower.data.prepare.context import PREFIX as PREFIX_CONTEXT
from twotower.data.prepare.context import encode_context
from twotower.data.prepare.events import event_features, time_gaps
from twotower.data.prepare.filters import check_interactions, filter_interactions, threshold
from twotower.data.prepare.left_out import PREFIX, left_out, remark
from twotower.data.prepare.options import Options
from twotower.data.prepare.shown import shown_items
from twotower.data.prepare.times import PARTS, seconds, times_of
from twotower.data.prepare.weights import scaled_weights
from twotower.data.splits import NOWHERE, TRAIN, Rows, held_out
from twotower.errors import UserError
from twotower.types import Feature, Schema

KEPT = ("behaviour", "weight")  # columns of the reader that training reads as they are


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
    frames: Frames,
    options: Options,
    progress: Callable[[str], None] = lambda stage: None,
    engine: Engine = IN_MEMORY,
) -> Prepared:
    """Filter, split and index.

    Args:
        frames: a reader's.
        options: decisions.
        progress: called with the name of each stage as it starts.
        engine: numbers and sorts the interactions.

    Raises:
        UserError: for data that cannot be used, or if nothing is left for training or testing.
    """
    progress("checking")
    check_interactions(frames)
    thresholds = threshold(pl.col("value"), options.filters, frames.columns())
    progress("ids")
    coded = engine.code(frames, thresholds)
    user_ids, item_ids = coded.user_ids, coded.item_ids
    progress("filters")
    coded = filter_interactions(coded, options.filters, engine.storage)
    dropped = coded.dropped
    progress("split")
    given = coded.column("part") if "part" in coded.columns else None
    moments = coded.column("time")
    part = options.split(Rows(coded.column("user"), moments, frames.time_unit, given))
    if num := int((part == NOWHERE).sum()):
        dropped["held-out interactions of users with less than data.split.min_history"] = num
    coding = (options.numeric_buckets, options.hashes)
    context = encode_context(frames, coded.columns, part == TRAIN, options.clock_context, *coding)
    options.hashes.check_names(frames.user_features, frames.item_features, context.kinds)
    users = _side(user_ids, coded.column("user"), part)
    items = _side(item_ids, coded.column("item"), part)
    columns = {"user": coded.column("user"), "item": coded.column("item"), **context.columns}
    columns |= {name: coded.column(name) for name in KEPT if name in coded.columns}
    if "shown" in coded.columns:
        own = (items.row, items.num_train)
        columns["shown"] = shown_items(pl.Series(coded.columns["shown"]), item_ids, *own)
    times = times_of(moments, part, frames.time_unit)
    if options.history_times or "time_gap" in options.history_features:
        columns["time"] = moments
    interactions = _sorted_by_part(columns, part, users, items, engine.storage)
    num_interactions = len(interactions["user"])
    progress("features")
    targets = getattr(options.split, "targets", "all")
    arrays = _interaction_arrays(interactions, len(users.ids), targets, engine.storage)
    if options.history_times:
        arrays["interactions/time"] = seconds(interactions["time"], frames.time_unit)
    if "time_gap" in options.history_features:
        order = (interactions["time"], interactions["user"])
        arrays["interactions/time_gap"] = time_gaps(*order, frames.time_unit)
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
    in_train = interactions["part"] == TRAIN
    count = counts(arrays["interactions/item"], len(items.ids), in_train)
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
            "interactions": coded.num_raw + sum((frames.dropped or {}).values()),
            "users": len(user_ids),
            "items": len(item_ids),
            "categories": raw_categories.n_unique() - raw_categories.has_nulls(),
        },
        "dropped": (frames.dropped or {}) | dropped,
        "num_users": len(users.ids),
        "num_train_users": users.num_train,
        "num_interactions": num_interactions,
        "times": times,
    }
    return Prepared(arrays, tables, meta, user.encodings | item.encodings | context.encodings)


def _side(ids: pl.Series, code: np.ndarray, part: np.ndarray) -> Side:
    """Number users or items, those of training first, so that trained rows come first in tables."""
    in_train = counts(code, len(ids), part == TRAIN) > 0
    present = counts(code, len(ids), part != NOWHERE) > 0
    order = np.concatenate([np.flatnonzero(in_train), np.flatnonzero(present & ~in_train)])
    row = np.full(len(ids), -1, dtype=np.int32)
    row[order] = np.arange(len(order), dtype=np.int32)
    num_train = int(in_train.sum())
    feature_row = np.arange(1, len(order) + 1, dtype=np.int32)
    feature_row[num_train:] = 0
    return Side(ids[order], num_train, row, feature_row)


def _sorted_by_part(
    columns: dict[str, np.ndarray], part: np.ndarray, users: Side, items: Side, storage: Storage
) -> dict[str, np.ndarray]:
    """``user``, ``item``, ``part`` and other columns, by user, then part, then time."""
    code = columns["user"]
    size = counts(code, len(users.row))  # (num_codes,) interactions of each
    start = size.cumsum() - size
    order = np.argsort(np.where(users.row < 0, len(users.row), users.row), kind="stable")
    order = order[: len(users.ids)]  # the code of each user
    end = size[order].cumsum()
    num = int(len(part) - (part == NOWHERE).sum())
    found = {"part": storage.new((num,), np.int8)}
    for name, column in columns.items():
        found[name] = storage.new((num, *column.shape[1:]), column.dtype)
    done = first = 0
    while first < len(order):  # some users at a time
        limit = blocks.BLOCK + (int(end[first - 1]) if first else 0)
        last = max(int(np.searchsorted(end, limit, side="right")), first + 1)
        own = order[first:last]
        user = np.repeat(np.arange(first, last, dtype=np.int32), size[own])
        shift = np.repeat(start[own] - (size[own].cumsum() - size[own]), size[own])
        rows = np.arange(len(user)) + shift
        stays = part[rows] != NOWHERE
        user, rows = user[stays], rows[stays]
        key = user.astype(np.int64) * len(PARTS) + part[rows]
        if (key[1:] < key[:-1]).any():
            rows = rows[np.argsort(key, kind="stable")]
        here = slice(done, done + len(rows))
        for name, column in columns.items():
            found[name][here] = column[rows]
        found["user"][here] = user
        found["item"][here] = items.row[found["item"][here]]
        found["part"][here] = part[rows]
        done, first = here.stop, last
    return found


def _interaction_arrays(
    interactions: dict[str, np.ndarray], num_users: int, targets: str, storage: Storage
) -> dict[str, np.ndarray]:
    user, part = interactions["user"], interactions["part"]
    arrays = {
        "interactions/user": user,
        "interactions/item": interactions["item"],
        "offset": np.append(0, counts(user, num_users).cumsum()),
    }
    for name, column in interactions.items():
        if name in ("behaviour", "shown"):
            arrays[f"interactions/{name}"] = column
        elif name == "weight":
            arrays["interactions/weight"] = scaled_weights(column, part == TRAIN)
        elif name.startswith(PREFIX_CONTEXT):
            arrays[name.replace(".", "/", 1)] = column
    for name, value in PARTS.items():
        position = storage.indices(part == value)
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
