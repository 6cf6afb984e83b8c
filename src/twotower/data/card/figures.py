"""The figures of a data card, counted on the prepared arrays."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from twotower.data.card.spread import concentration, evenness, spread
from twotower.data.prepare.filters import moment
from twotower.data.prepare.options import GROUPS, Options
from twotower.data.prepare.prepare import Prepared
from twotower.data.prepare.times import PARTS
from twotower.types import Schema

Arrays = dict[str, np.ndarray]

HELD_OUT = ("val", "test")
TOP = 100
NUM_LARGEST = 20


class Card(NamedTuple):
    """Description of prepared data.

    Attributes:
        figures: plain values, as ``card.json`` holds them; shares lie between 0 and 1.
        curves: arrays for the plots: ``user`` and ``item`` are the training interactions of each,
            ``category`` those of each category and ``category_group`` its group, ``history/val``
            and ``history/test`` the number of earlier interactions of each evaluated user.
    """

    figures: dict[str, Any]
    curves: Arrays


def measure(prepared: Prepared, options: Options) -> Card:
    """Count everything that the card shows.

    Args:
        prepared: data as the store holds them.
        options: what they were prepared with.
    """
    arrays, meta = prepared.arrays, prepared.meta
    schema = Schema.from_plain(meta["schema"])
    position = {name: _positions(arrays, name) for name in PARTS}
    by_item = {
        name: np.bincount(arrays["interactions/item"][own], minlength=schema.num_items)
        for name, own in position.items()
    }
    train_user = arrays["interactions/user"][position["train"]]
    user = np.bincount(train_user, minlength=meta["num_train_users"])
    item = by_item["train"][: schema.num_train_items]
    category, sizes = _categories(prepared, by_item["train"], schema)
    history, lengths = _history(arrays, user, options.history_length)
    repeats, targets = _repeats(arrays, position, meta, options)
    parts = {name: _part(arrays, meta, schema, name, count) for name, count in by_item.items()}
    for name in HELD_OUT:
        parts[name] |= _cold(arrays, meta, schema, name, by_item[name]) | targets[name]
    num, num_users = meta["num_interactions"], meta["num_users"]
    kept = {"interactions": num, "users": num_users, "items": schema.num_items}
    behaviours = [
        int((arrays["interactions/behaviour"] == row).sum())
        for row in range(len(meta["behaviours"]))
    ]
    weights = arrays.get("interactions/weight")
    figures = {
        "without_interactions": meta.get("without_interactions", {}),
        "raw": meta["raw"],
        "dropped": meta["dropped"],
        "kept": {**kept, "density": num / (num_users * schema.num_items)},
        "parts": parts,
        "time_unit": meta["times"].get("unit", "order"),
        "per_user": spread(user),
        "per_item": {**spread(item), **concentration(item)},
        "categories": category,
        "history": history,
        "repeats": repeats,
        "drift": _drift(by_item["train"], by_item["test"]),
        "features": {side: _features(arrays, side, schema, meta) for side in ("user", "item")},
        "behaviours": dict(zip(meta["behaviours"], behaviours, strict=True)),
        "weights": {} if weights is None else spread(weights[position["train"]]),
    }
    return Card(figures, {"user": user, "item": item, **sizes, **lengths})


def _positions(arrays: Arrays, name: str) -> np.ndarray:
    """``(num_interactions,)`` positions of all interactions of a part."""
    first = arrays[f"position/{name}"]
    if name not in HELD_OUT:
        return first
    num = arrays[f"targets/{name}"]  # a user's targets follow one another
    before = num.cumsum() - num
    return np.repeat(first - before, num) + np.arange(num.sum())


def _part(
    arrays: Arrays, meta: dict[str, Any], schema: Schema, name: str, count: np.ndarray
) -> dict[str, Any]:
    """Counts of a part, whose interactions with each item are ``count`` ``(num_items,)``."""
    num = int(count.sum())
    in_group = np.bincount(arrays["group"] + 1, count, minlength=len(GROUPS) + 1) / num
    time = meta["times"].get("parts", {}).get(name, {})
    return {
        "interactions": num,
        "users": meta["num_train_users"],
        "items": int((count > 0).sum()),
        "groups": dict(zip(("none", *GROUPS), in_group.tolist(), strict=True)),
        **{end: moment(time[end], meta["times"]["unit"]) for end in ("first", "last") if time},
    }


def _cold(
    arrays: Arrays, meta: dict[str, Any], schema: Schema, name: str, count: np.ndarray
) -> dict[str, Any]:
    """Users of a held-out part, and the users and items in it that training lacks."""
    num_targets = arrays[f"targets/{name}"]
    user = arrays["interactions/user"][arrays[f"position/{name}"]]
    cold_user, cold_item = user >= meta["num_train_users"], count[schema.num_train_items :]
    return {
        "users": len(user),
        "cold_items": int((cold_item > 0).sum()),
        "cold_item_targets": float(cold_item.sum() / count.sum()),
        "cold_users": float(cold_user.mean()),
        "cold_user_targets": float(num_targets[cold_user].sum() / count.sum()),
    }


def _categories(
    prepared: Prepared, count: np.ndarray, schema: Schema
) -> tuple[dict[str, Any], Arrays]:
    """Skew of the categories; ``count`` are the training interactions of each item."""
    category, group = prepared.arrays["category"], prepared.arrays["group"]
    names, size = prepared.meta["categories"], np.array(schema.category_counts, dtype=np.float64)
    known = category >= 0
    items = np.bincount(category[known], minlength=len(names))
    group_of = np.zeros(len(names), dtype=np.int8)
    group_of[category[known]] = group[known]
    share = size / max(1.0, size.sum())
    order = np.argsort(-size, kind="stable")
    top = [
        {"name": names[row], "items": int(items[row]), "share": float(share[row])}
        for row in order[:NUM_LARGEST]
    ]
    groups = {
        name: {
            "categories": int((group_of == row).sum()),
            "items": int((group == row).sum()),
            "share": float(share[group_of == row].sum()),
        }
        for row, name in enumerate(GROUPS)
    }
    figures = {
        "num": len(names),
        "raw": prepared.meta["raw"]["categories"],
        "items_without": float(1 - known.mean()),
        "interactions_without": float(1 - count[known].sum() / count.sum()),
        "largest_share": top[0]["share"] if top else None,
        "effective_num": evenness(size),
        "top": top,
        "groups": groups,
    }
    return figures, {"category": size[order], "category_group": group_of[order]}


def _history(arrays: Arrays, per_user: np.ndarray, length: int) -> tuple[dict[str, Any], Arrays]:
    """Shares of predictions with less than ``length`` earlier interactions, and with none."""
    num = max(1, per_user.sum())
    # the k-th training interaction of a user has k - 1 before it
    short = {"train": float(np.minimum(per_user, length).sum() / num)}
    none = {"train": float(len(per_user) / num)}
    lengths = {}
    for name in HELD_OUT:
        position = arrays[f"position/{name}"]
        before = position - arrays["offset"][arrays["interactions/user"][position]]
        short[name], none[name] = float((before < length).mean()), float((before == 0).mean())
        lengths[f"history/{name}"] = before
    return {"length": length, "short": short, "none": none}, lengths


def _repeats(
    arrays: Arrays, position: Arrays, meta: dict[str, Any], options: Options
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Share of interactions with an item that the user had before, of the raw or the kept ones.

    Also, for validation and test, the number of ``targets`` (distinct items of each user), and the
    share of them that the user had in an earlier part, ``seen_targets``.
    """
    if options.filters.duplicates != "all" and not meta["behaviours"]:
        dropped = meta["dropped"].items()
        num = sum(count for reason, count in dropped if reason.startswith("repeated pairs"))
        own = {name: {"targets": len(position[name]), "seen_targets": 0.0} for name in HELD_OUT}
        return {"share": num / meta["raw"]["interactions"], "of": "raw"}, own
    user, item = arrays["interactions/user"], arrays["interactions/item"]
    part = np.zeros(len(user), dtype=np.int8)
    for name in HELD_OUT:
        part[position[name]] = PARTS[name]
    interactions = pl.LazyFrame({"user": user, "item": item, "part": part})
    triples = interactions.unique().with_columns(first=pl.col("part").min().over("user", "item"))
    counts = triples.group_by("part").agg(
        num=pl.len(), seen=(pl.col("first") < pl.col("part")).sum()
    )
    names, own, num_pairs = list(PARTS), {}, 0
    for value, num, seen in counts.collect(engine="streaming").iter_rows():
        num_pairs += num - seen
        own[names[value]] = {"targets": num, "seen_targets": seen / num}
    repeats = {"share": 1 - num_pairs / len(user), "of": "kept"}
    return repeats, {name: own[name] for name in HELD_OUT}


def _drift(train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """Overlap of the ``top`` items of training and test; ``least``: targets of test's last."""
    top = min(TOP, len(train) // 10, int((test > 0).sum()))
    if top == 0:
        return {"top": 0, "overlap": None, "least": 0}
    first, second = (np.argsort(-count, kind="stable")[:top] for count in (train, test))
    overlap = len(np.intersect1d(first, second)) / top
    return {"top": top, "overlap": overlap, "least": int(test[second].min())}


def _features(
    arrays: Arrays, side: str, schema: Schema, meta: dict[str, Any]
) -> list[dict[str, Any]]:
    """Kind, vocabulary size, share of training rows without a value (numbers: or at the mean)."""
    num_rows = meta["num_train_users"] if side == "user" else schema.num_train_items
    rows = []
    for feature in getattr(schema, side):
        if feature.kind == "event":
            continue
        num_values = max(0, feature.num_values - (feature.kind != "vector"))
        row: dict[str, Any] = {"name": feature.name, "kind": feature.kind, "values": num_values}
        if feature.kind != "history":
            if feature.name in schema.context and side == "user":
                table = arrays[f"context/{feature.name}"][arrays["position/train"]]
            else:
                table = arrays[f"{side}/{feature.name}"][:num_rows]
            row["missing"] = float((table == 0).reshape(len(table), -1).all(1).mean())
        if feature.kind == "multi":
            row["width"] = table.shape[1]
        rows.append(row)
    return rows
