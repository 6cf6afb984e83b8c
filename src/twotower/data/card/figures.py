"""The figures of a data card, counted on the memory-mapped arrays in chunks: memory goes to a few counts per user and item."""

from typing import Any, NamedTuple

import numpy as np

from twotower.data.card.spread import concentration, evenness, spread
from twotower.data.prepare.filters import moment
from twotower.data.prepare.prepare import GROUPS, Options, Prepared
from twotower.types import Schema

CHUNK = 1 << 22
HELD_OUT = ("val", "test")
TOP = 100
NUM_LARGEST = 20


class Card(NamedTuple):
    """What is known of prepared data.

    Attributes:
        figures: plain values, as ``card.json`` holds them; shares lie between 0 and 1.
        curves: what only plots need: ``user`` and ``item`` are the training interactions of each, ``category`` those of each
            category and ``category_group`` its group, ``history/val`` and ``history/test`` how much is known of each user there.
    """

    figures: dict[str, Any]
    curves: dict[str, np.ndarray]


def measure(prepared: Prepared, options: Options) -> Card:
    """Count.

    Args:
        prepared: data as the store holds them.
        options: what they were prepared with.
    """
    arrays, meta = prepared.arrays, prepared.meta
    schema = Schema.from_plain(meta["schema"])
    by_item = {name: _by_item(arrays, name, schema.num_items) for name in ("train", *HELD_OUT)}
    per_user = np.diff(arrays["offset"])  # (num_users,)
    for name in HELD_OUT:
        per_user[arrays["interactions/user"][arrays[f"position/{name}"]]] -= arrays[
            f"targets/{name}"
        ]
    user, item = per_user[: meta["num_train_users"]], by_item["train"][: schema.num_train_items]
    category, largest = _categories(
        prepared, by_item["train"], np.array(schema.category_counts, dtype=np.float64)
    )
    history, lengths = _history(arrays, user, options.history_length)
    repeats, targets = _repeats(arrays, meta, options)
    parts = {name: _part(arrays, meta, schema, name, count) for name, count in by_item.items()}
    for name in HELD_OUT:
        parts[name] |= targets[name]
    figures = {
        "without_interactions": meta.get("without_interactions", {}),
        "raw": meta["raw"],
        "dropped": meta["dropped"],
        "kept": _kept(meta, schema),
        "parts": parts,
        "time_unit": meta["times"].get("unit", "order"),
        "per_user": spread(user),
        "per_item": {**spread(item), **concentration(item)},
        "categories": category,
        "history": history,
        "repeats": repeats,
        "drift": _drift(by_item["train"], by_item["test"]),
        "features": {side: _features(arrays, side, schema, meta) for side in ("user", "item")},
        "behaviours": _behaviours(arrays, meta["behaviours"]),
    }
    return Card(figures, {"user": user, "item": item, **largest, **lengths})


def _kept(meta: dict[str, Any], schema: Schema) -> dict[str, float]:
    return {
        "interactions": meta["num_interactions"],
        "users": meta["num_users"],
        "items": schema.num_items,
        "density": meta["num_interactions"] / (meta["num_users"] * schema.num_items),
    }


def _by_item(arrays: dict[str, np.ndarray], name: str, num_items: int) -> np.ndarray:
    """``(num_items,)`` interactions of a part with each item."""
    position, item = arrays[f"position/{name}"], arrays["interactions/item"]
    count = np.zeros(num_items, dtype=np.int64)
    for start in range(0, len(position), CHUNK):
        chunk = position[start : start + CHUNK]
        if name in HELD_OUT:
            chunk = _targets(chunk, arrays[f"targets/{name}"][start : start + CHUNK])
        count += np.bincount(item[chunk], minlength=num_items)
    return count


def _targets(first: np.ndarray, num: np.ndarray) -> np.ndarray:
    """``(num_targets,)`` positions of all targets of users whose first and number of targets are given."""
    before = num.cumsum() - num
    return np.repeat(first - before, num) + np.arange(num.sum())


def _part(
    arrays: dict[str, np.ndarray],
    meta: dict[str, Any],
    schema: Schema,
    name: str,
    count: np.ndarray,
) -> dict[str, Any]:
    """Counts of a part; for validation and test also what is cold and which groups its targets are of."""
    num = int(count.sum())
    time = meta["times"].get("parts", {}).get(name)
    part: dict[str, Any] = {
        "interactions": num,
        "users": meta["num_train_users"],
        "items": int((count > 0).sum()),
    }
    if time:
        part |= {end: moment(time[end], meta["times"]["unit"]) for end in ("first", "last")}
    in_group = np.bincount(arrays["group"] + 1, count, minlength=len(GROUPS) + 1) / num
    part["groups"] = dict(zip(("none", *GROUPS), in_group.tolist(), strict=True))
    if name in HELD_OUT:
        user, num_targets = (
            arrays["interactions/user"][arrays[f"position/{name}"]],
            arrays[f"targets/{name}"],
        )
        cold_user = user >= meta["num_train_users"]
        part["users"] = len(user)
        part["cold_items"] = int((count[schema.num_train_items :] > 0).sum())
        part["cold_item_targets"] = float(count[schema.num_train_items :].sum() / num)
        part["cold_users"] = float(cold_user.mean())
        part["cold_user_targets"] = float(num_targets[cold_user].sum() / num)
    return part


def _categories(
    prepared: Prepared, count: np.ndarray, size: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Skew of the categories, by training interactions of items ``count`` and of categories ``size``."""
    category, group, names = (
        prepared.arrays["category"],
        prepared.arrays["group"],
        prepared.meta["categories"],
    )
    known = category >= 0
    items = np.bincount(category[known], minlength=len(names))
    group_of = np.zeros(len(names), dtype=np.int8)
    group_of[category[known]] = group[known]
    total = max(1.0, size.sum())
    order = np.argsort(-size, kind="stable")
    top = [
        {"name": names[row], "items": int(items[row]), "share": float(size[row] / total)}
        for row in order[:NUM_LARGEST]
    ]
    figures = {
        "num": len(names),
        "raw": prepared.meta["raw"]["categories"],
        "items_without": float(1 - known.mean()),
        "interactions_without": float(1 - count[known].sum() / count.sum()),
        "largest_share": top[0]["share"] if top else None,
        "effective_num": evenness(size),
        "top": top,
        "groups": {
            name: {
                "categories": int((group_of == row).sum()),
                "items": int((group == row).sum()),
                "share": float(size[group_of == row].sum() / total),
            }
            for row, name in enumerate(GROUPS)
        },
    }
    return figures, {"category": size[order], "category_group": group_of[order]}


def _history(
    arrays: dict[str, np.ndarray], per_user: np.ndarray, length: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """How much is known of a user when an item is predicted: the interactions before a part's first target."""
    short, none, lengths = {}, {}, {}
    num = max(1, per_user.sum())
    short["train"] = float(
        np.minimum(per_user, length).sum() / num
    )  # a user's k-th positive has k - 1 before it
    none["train"] = float(len(per_user) / num)
    for name in HELD_OUT:
        position = arrays[f"position/{name}"]
        before = position - arrays["offset"][arrays["interactions/user"][position]]
        short[name], none[name] = float((before < length).mean()), float((before == 0).mean())
        lengths[f"history/{name}"] = before
    return {"length": length, "short": short, "none": none}, lengths


def _repeats(
    arrays: dict[str, np.ndarray], meta: dict[str, Any], options: Options
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Interactions with an item that the user had before: dropped ones of the raw data, or those kept.

    Also, of validation and test, how many ``targets`` there are, each user's distinct items, and the
    share of ``seen_targets``: items that the user had in an earlier part.
    """
    if options.filters.duplicates != "all" and not meta["behaviours"]:
        num = sum(
            count
            for reason, count in meta["dropped"].items()
            if reason.startswith("repeated pairs")
        )
        own = {
            name: {"targets": int(arrays[f"targets/{name}"].sum()), "seen_targets": 0.0}
            for name in HELD_OUT
        }
        return {"share": num / meta["raw"]["interactions"], "of": "raw"}, own
    user, item, offset = arrays["interactions/user"], arrays["interactions/item"], arrays["offset"]
    cuts = offset[np.searchsorted(offset, np.arange(0, len(user), CHUNK))]  # between users
    cuts = np.unique(np.append(cuts, len(user)))
    num_pairs, counts = 0, {name: np.zeros(2, dtype=np.int64) for name in HELD_OUT}
    for start, end in zip(cuts[:-1], cuts[1:], strict=True):
        pair = user[start:end].astype(np.int64) * (int(item.max()) + 1) + item[start:end]
        distinct, first = np.unique(pair, return_index=True)
        num_pairs += len(distinct)
        for name in HELD_OUT:
            counts[name] += _seen_targets(arrays, name, start, pair, distinct, first + start)
    own = {
        name: {"targets": int(num), "seen_targets": seen / num}
        for name, (num, seen) in counts.items()
    }
    return {"share": 1 - num_pairs / len(user), "of": "kept"}, own


def _seen_targets(
    arrays: dict[str, np.ndarray],
    name: str,
    start: int,
    pair: np.ndarray,
    distinct: np.ndarray,
    first: np.ndarray,
) -> tuple[int, int]:
    """Targets of a part among some users' interactions, and how many of these the user had in an earlier part.

    Args:
        arrays: of the prepared data.
        name: of the part.
        start: position of the first of the interactions.
        pair: ``(num,)`` user and item of each as one number.
        distinct: ``(num_distinct,)`` these numbers, ascending.
        first: ``(num_distinct,)`` position at which each of them stands first.
    """
    position = arrays[f"position/{name}"]
    own = slice(*np.searchsorted(position, [start, start + len(pair)]))
    num = arrays[f"targets/{name}"][own]
    begin = np.repeat(position[own], num)  # of the part, for each of its interactions
    target, row = np.unique(pair[_targets(position[own], num) - start], return_index=True)
    return len(target), int((first[np.searchsorted(distinct, target)] < begin[row]).sum())


def _drift(train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """Do the ``top`` most popular items stay so in test, where the last of them has ``least`` targets?"""
    top = min(TOP, len(train) // 10, int((test > 0).sum()))
    if top == 0:
        return {"top": 0, "overlap": None, "least": 0}
    first, second = (np.argsort(-count, kind="stable")[:top] for count in (train, test))
    return {
        "top": top,
        "overlap": len(np.intersect1d(first, second)) / top,
        "least": int(test[second].min()),
    }


def _features(
    arrays: dict[str, np.ndarray], side: str, schema: Schema, meta: dict[str, Any]
) -> list[dict[str, Any]]:
    """Kinds, vocabulary sizes, and the share of training rows without a value (for numbers: without one, or at the mean)."""
    num_rows = meta["num_train_users"] if side == "user" else schema.num_train_items
    found = []
    for feature in getattr(schema, side):
        row: dict[str, Any] = {
            "name": feature.name,
            "kind": feature.kind,
            "values": max(0, feature.num_values - 1),
        }
        if feature.kind != "history":
            table = arrays[f"{side}/{feature.name}"][:num_rows]
            row["missing"] = float((table == 0).reshape(len(table), -1).all(1).mean())
        if feature.kind == "multi":
            row["width"] = table.shape[1]
        found.append(row)
    return found


def _behaviours(arrays: dict[str, np.ndarray], names: list[str]) -> dict[str, int]:
    if not names:
        return {}
    return dict(
        zip(
            names,
            np.bincount(arrays["interactions/behaviour"], minlength=len(names)).tolist(),
            strict=True,
        )
    )
