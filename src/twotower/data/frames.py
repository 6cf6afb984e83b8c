"""What a reader hands over: official files as three tables, no learning decisions taken."""

from pathlib import Path
from typing import NamedTuple, Protocol

import polars as pl

from twotower.types import FeatureKind


class Frames(NamedTuple):
    """Raw data.

    Attributes:
        interactions: ``user``, ``item``, ``time`` (integer; order is what counts) and ``value`` (rating, 1 for clicks), in
            file order, which breaks ties of time.
        users: ``user`` and one column per user feature.
        items: ``item``, ``category`` (one primary category or null), and one column per item feature.
        user_features: kind of each feature column of ``users``; ``multi`` columns hold lists.
        item_features: the same for ``items``.
        note: what a reader of results must know of these files, or "".
        latents: the planted truth of synthetic data: ``(user ids, (users, d))`` and ``(item ids, (items, d))``, whose inner
            product orders items as the best possible model would; None for real data.
    """

    interactions: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    user_features: dict[str, FeatureKind]
    item_features: dict[str, FeatureKind]
    note: str = ""
    latents: dict[str, tuple[pl.Series, pl.DataFrame]] | None = None


class Reader(Protocol):
    """One data set's official format."""

    name: str

    def options(self) -> dict[str, object]:
        """Every setting that changes the frames; part of the cache key."""
        ...

    def sources(self, data_dir: Path) -> list[Path]:
        """The raw files below ``data_dir``, whether they exist or not."""
        ...

    def fetch(self, data_dir: Path) -> None:
        """Download what is missing."""
        ...

    def read(self, data_dir: Path) -> Frames:
        """Parse the raw files."""
        ...
