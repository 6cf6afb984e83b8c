"""Reads the trials of a search."""

import csv
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from pydantic import BaseModel

from twotower.report.folders import roots
from twotower.report.record import Text, reason
from twotower.report.runs import LeftOut
from twotower.run.search_files import ABOUT, ENDED, TRIALS, read
from twotower.wording import printable


class About(BaseModel):
    """``search.yaml``; other fields are ignored.

    Attributes:
        metric: of the validation.
        mode: ``max`` or ``min``.
        sampler: name of the method.
        pruner: name of the method.
        data: the data set.
    """

    metric: Text
    mode: str = "max"
    sampler: Text | dict[str, Any] | None = None
    pruner: Text | dict[str, Any] | None = None
    data: Text | None = ""


class Trials(NamedTuple):
    """The finished trials of a variant, in the order of the search.

    Attributes:
        variant: its name.
        values: ``(num_trials,)``, larger is better; of a pruned trial its best so far, of a failed
            one the worst of the search.
        states: ``complete``, ``pruned`` or ``failed`` of each.
        seconds: that all took.
    """

    variant: str
    values: np.ndarray
    states: list[str]
    seconds: float


class Search(NamedTuple):
    """A search.

    Attributes:
        name: of its folder.
        about: what was searched.
        variants: those with finished trials.
    """

    name: str
    about: About
    variants: list[Trials]

    @property
    def sign(self) -> int:
        """-1 if a small value of the metric is good."""
        return -1 if self.about.mode == "min" else 1

    @property
    def num_trials(self) -> int:
        """That all variants have."""
        return min(len(own.values) for own in self.variants)


def find_searches(places: list[str]) -> list[Path]:
    """Folders of searches at or below ``places`` (folders or globs), each once."""
    found: dict[Path, None] = {}
    for root in (root for place in places for root in roots(place)):
        for folder, inner, files in os.walk(root):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if TRIALS in files and ABOUT in files:
                found[Path(folder).resolve()] = None
    return list(found)


def read_search(folder: Path) -> Search | LeftOut:
    """A search, or why it is left out."""
    try:
        plain, every = read(folder)
        about = About.model_validate(plain)
        rows = [row for row in every if row["state"] in ENDED]
        rows.sort(key=lambda row: int(row["number"]))
        values = [_value(row, about.mode) for row in rows]
        seconds = [float(row.get("seconds") or 0) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error, yaml.YAMLError) as error:
        return LeftOut(
            folder.name, f"damaged: {TRIALS} or {ABOUT} cannot be used ({reason(error)})"
        )
    worst = min(filter(math.isfinite, values), default=None)
    if worst is None:
        return LeftOut(folder.name, "no trial of this search has finished")
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(printable(row["variant"]), []).append(place)
    variants = [
        Trials(
            variant,
            np.array([values[at] if math.isfinite(values[at]) else worst for at in own]),
            [rows[at]["state"] for at in own],
            sum(seconds[at] for at in own),
        )
        for variant, own in places.items()
    ]
    return Search(folder.name, about, variants)


def _value(row: dict[str, str], mode: str) -> float:
    """Larger is better; NaN of a failed trial."""
    if row["state"] == "failed" or not row["value"]:
        return math.nan
    return -float(row["value"]) if mode == "min" else float(row["value"])
