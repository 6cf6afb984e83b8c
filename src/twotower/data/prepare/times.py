"""Times of interactions, and their spread over the parts of a split."""

from typing import Any

import numpy as np

from twotower.data.blocks import blocks
from twotower.data.splits import TEST, TRAIN, UNITS_PER_SECOND, VAL
from twotower.errors import UserError

PARTS = {"train": TRAIN, "val": VAL, "test": TEST}
NUM_BINS = 60


def seconds(moments: np.ndarray, unit: str) -> np.ndarray:
    """Times in whole seconds, as int64; steps of a clock as they are."""
    if unit == "order":
        raise UserError(
            "data.history_times=true needs times, and these data have only an order: set it to "
            "false, or take other data"
        )
    seconds: np.ndarray = moments // UNITS_PER_SECOND.get(unit, 1)
    return seconds.astype(np.int64)


def times_of(moments: np.ndarray, part: np.ndarray, unit: str) -> dict[str, Any]:
    """First and last time and a histogram of each part; empty if there are no times."""
    if unit == "order":
        return {}
    first, last = moments.min(), moments.max()
    edges = np.linspace(first, last if last > first else first + 1, NUM_BINS + 1)
    parts = {}
    for name, value in PARTS.items():
        histogram, ends = np.zeros(NUM_BINS, dtype=np.int64), []
        for rows in blocks(len(part)):
            own = moments[rows][part[rows] == value]
            if len(own):
                histogram += np.histogram(own, edges)[0]
                ends += [own.min().item(), own.max().item()]
        if ends:
            parts[name] = {"first": min(ends), "last": max(ends), "histogram": histogram.tolist()}
    return {"unit": unit, "edges": edges.tolist(), "parts": parts}
