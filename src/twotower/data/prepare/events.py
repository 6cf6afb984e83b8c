"""Features of the events in a history: the items' category, what the user did, the time between."""

import numpy as np
import polars as pl

from twotower.data.splits import UNITS_PER_SECOND
from twotower.errors import UserError
from twotower.types import Feature

EVENTS = ("category", "behaviour", "time_gap")
NUM_GAPS = 32


def event_features(
    wanted: tuple[str, ...], num_categories: int, num_behaviours: int
) -> list[Feature]:
    """``history_<name>`` of each, where index 0 is unknown.

    Raises:
        UserError: for what the data do not have.
    """
    sizes = {"category": num_categories, "behaviour": num_behaviours, "time_gap": NUM_GAPS}
    cures = {
        "category": "these data have no categories",
        "behaviour": "these data have one behaviour; name several, data.reader.behaviours",
    }
    for name in wanted:
        if not sizes[name]:
            raise UserError(f"data.history_features={name}: {cures[name]}")
    return [Feature(f"history_{name}", "event", sizes[name] + 1) for name in wanted]


def time_gaps(interactions: pl.DataFrame, unit: str) -> np.ndarray:
    """``1 + floor(log2(1 + seconds since the user's previous event))``, at most 32; 0 of the first.

    Args:
        interactions: ``user`` and ``time``, by user, then part, then time.
        unit: of the times.

    Raises:
        UserError: for data without a clock.
    """
    if unit == "order":
        raise UserError(
            "data.history_features=time_gap needs times, and these data have only an order"
        )
    moments, user = (interactions[name].to_numpy() for name in ("time", "user"))
    seconds = np.diff(moments, prepend=moments[:1]) / UNITS_PER_SECOND.get(unit, 1)
    gap = 1 + np.floor(np.log2(1 + np.maximum(seconds, 0)))
    gap[np.diff(user, prepend=-1) != 0] = 0
    found: np.ndarray = np.minimum(gap, NUM_GAPS).astype(np.uint8)
    return found
