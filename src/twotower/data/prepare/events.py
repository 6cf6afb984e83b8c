"""Features of the events in a history: labels of the items, what the user did, the time between."""

import numpy as np

from twotower.data.blocks import user_blocks
from twotower.data.splits import UNITS_PER_SECOND
from twotower.errors import UserError
from twotower.types import Feature

EVENTS = ("category", "behaviour", "time_gap")
NUM_GAPS = 32


def event_features(
    wanted: tuple[str, ...], num_categories: int, num_behaviours: int, items: list[Feature]
) -> list[Feature]:
    """``history_<name>`` of each, where index 0 is unknown.

    Args:
        wanted: of ``EVENTS``, or labels of the items.
        num_categories: of the items.
        num_behaviours: of the data; 0 or 1: there is nothing to tell apart.
        items: features of the items.

    Raises:
        UserError: for what the data do not have.
    """
    sizes = {"category": num_categories, "behaviour": num_behaviours, "time_gap": NUM_GAPS}
    cures = {
        "category": "these data have no categories",
        "behaviour": "these data have one behaviour; name several, data.reader.behaviours",
    }
    labels = {one.name: one.num_values for one in items if one.kind in ("categorical", "multi")}
    del labels["item_id"]  # the history itself
    for feature in items:
        buckets = " (data.numeric_buckets makes labels of numbers)" * (feature.kind == "numeric")
        cures[feature.name] = f"it is {feature.kind}, and an event has labels{buckets}"
    found = []
    for name in wanted:
        num_values = sizes[name] and sizes[name] + 1 if name in sizes else labels.get(name, 0)
        if not num_values:
            known = ", ".join([*EVENTS, *(label for label in labels if label not in EVENTS)])
            cure = cures.get(name, f"there is no such feature; choose from {known}")
            raise UserError(f"data.history_features={name}: {cure}")
        found.append(Feature(f"history_{name}", "event", num_values))
    return found


def time_gaps(moments: np.ndarray, user: np.ndarray, unit: str) -> np.ndarray:
    """``1 + floor(log2(1 + seconds since the user's previous event))``, at most 32; 0 of the first.

    Args:
        moments: ``(num_interactions,)`` times, by user, then part, then time.
        user: ``(num_interactions,)`` of each.
        unit: of the times.

    Raises:
        UserError: for data without a clock.
    """
    if unit == "order":
        raise UserError(
            "data.history_features=time_gap needs times, and these data have only an order"
        )
    found = np.empty(len(user), dtype=np.uint8)
    for own in user_blocks(user):
        seconds = np.diff(moments[own], prepend=moments[own][:1]) / UNITS_PER_SECOND.get(unit, 1)
        gap = 1 + np.floor(np.log2(1 + np.maximum(seconds, 0)))
        gap[np.diff(user[own], prepend=-1) != 0] = 0
        found[own] = np.minimum(gap, NUM_GAPS)
    return found
