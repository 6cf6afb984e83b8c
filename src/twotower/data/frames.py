"""The tables that readers give, before any decision of preparation."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import polars as pl

from twotower.types import FeatureKind

TimeUnit = Literal["s", "ms", "us", "ns", "step", "order"]


class Frames(NamedTuple):
    """Raw data.

    Attributes:
        interactions: ``user``, ``item`` (integers or strings), ``time`` (integers, or floats for
            counts with fractions), in file order, which breaks ties of time; where the files have
            them also ``value`` (a rating), ``behaviour`` (index into ``behaviours``), ``weight``
            (how much it counts in the loss), ``shown`` (lists of the items beside it that were not
            chosen) and ``part`` (of a given split: 0 training, 1 validation, 2 test).
        users: ``user`` and one column per user feature.
        items: ``item``, ``category`` (one primary category or null), and one column per item
            feature.
        user_features: kind of each feature column of ``users``; ``multi`` columns hold lists.
        item_features: the same for ``items``.
        time_unit: of ``time`` since 1970; ``step`` counts on one clock for all users, ``order`` for
            each user alone.
        behaviours: names of what users do, where several are kept.
        dropped: rows of the files that are not among ``interactions``, by reason.
        remarks: messages printed once: inferred kinds, missing files.
        note: a fact about these files that every result repeats, or "".
        where: names the place of a row of ``interactions``, for messages.
        latents: the planted truth of synthetic data: ``(user ids, (users, d))`` and
            ``(item ids, (items, d))``, whose inner product orders items as the best possible model
            does; None for real data.
        context_features: kinds (``categorical`` or ``numeric``) of columns ``context.<name>`` of
            ``interactions``: what is known of a request before its item is chosen.
    """

    interactions: pl.DataFrame | pl.LazyFrame
    users: pl.DataFrame
    items: pl.DataFrame
    user_features: dict[str, FeatureKind]
    item_features: dict[str, FeatureKind]
    time_unit: TimeUnit = "s"
    behaviours: tuple[str, ...] = ()
    dropped: dict[str, int] | None = None
    remarks: tuple[str, ...] = ()
    note: str = ""
    where: Callable[[int], str] = "row {:,}".format
    latents: dict[str, tuple[pl.Series, pl.DataFrame]] | None = None
    context_features: dict[str, FeatureKind] = {}

    def columns(self) -> list[str]:
        """Names of the columns of interactions."""
        return self.interactions.lazy().collect_schema().names()

    def collect(self, *values: pl.Expr) -> pl.DataFrame:
        """Values computed from the interactions, a part of them at a time."""
        return self.interactions.lazy().select(values).collect(engine="streaming")

    def place(self, mask: pl.Expr) -> str:
        """The place of the first interaction that a mask marks, for messages."""
        rows = self.interactions.lazy().with_row_index("row").filter(mask).select("row").head(1)
        return self.where(int(rows.collect(engine="streaming").item()))


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


class WithoutFiles:
    """Base of readers that generate their data: no files, and all attributes are settings."""

    def options(self) -> dict[str, object]:
        """All settings."""
        return dict(vars(self))

    def sources(self, data_dir: Path) -> list[Path]:
        """No files."""
        return []

    def fetch(self, data_dir: Path) -> None:
        """Nothing to download."""
