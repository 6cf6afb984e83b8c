"""Frames from a few rows."""

import polars as pl

from twotower.data.frames import Frames
from twotower.data.prepare.filters import Filters
from twotower.data.prepare.options import Options
from twotower.data.splits import LeaveLastOut

KEEP_ALL = Options(Filters(None, "first", 0), LeaveLastOut(1), 3, (0.5, 0.8))


def make_frames(rows, users=None, items=None, columns=("user", "item", "time", "value"), **more):
    interactions = pl.DataFrame(rows, schema=list(columns), orient="row")
    users = users or {"user": interactions["user"].unique().sort()}
    items = items or {
        "item": interactions["item"].unique().sort(),
        "category": [None] * interactions["item"].n_unique(),
    }
    user_kinds = {name: "categorical" for name in users if name != "user"}
    item_kinds = {
        name: {"tags": "multi", "price": "numeric"}.get(name, "categorical")
        for name in items
        if name not in ("item", "category")
    }
    frames = Frames(
        interactions,
        pl.DataFrame(users),
        pl.DataFrame(items),
        user_kinds,
        item_kinds,
        time_unit="step",
    )
    return frames._replace(**more)
