"""Interactions with numbers in the place of ids, sorted: in memory by Polars."""

from typing import NamedTuple, Protocol

import numpy as np
import polars as pl

from twotower.data.blocks import Column, Storage
from twotower.data.frames import Frames


class Coded(NamedTuple):
    """Interactions sorted by user, time and file order.

    Attributes:
        user_ids: distinct raw ids of all interactions, sorted.
        item_ids: the same of the items.
        num_raw: interactions that were read.
        columns: ``user`` and ``item`` as places in these ids, ``time`` and the reader's other
            columns.
        dropped: interactions that are left out, by reason.
    """

    user_ids: pl.Series
    item_ids: pl.Series
    num_raw: int
    columns: dict[str, Column]
    dropped: dict[str, int]

    def column(self, name: str) -> np.ndarray:
        """A column of numbers."""
        return np.asarray(self.columns[name])


class Engine(Protocol):
    """Numbers and sorts interactions.

    Attributes:
        storage: makes the arrays with an entry for each interaction.
    """

    storage: Storage

    def code(self, frames: Frames, thresholds: dict[str, pl.Expr]) -> Coded:
        """Number the ids and sort.

        Args:
            frames: a reader's.
            thresholds: see :func:`~twotower.data.prepare.filters.threshold`.
        """
        ...


class InMemory:
    """Polars; all in memory."""

    def __init__(self) -> None:
        self.storage = Storage()

    def code(self, frames: Frames, thresholds: dict[str, pl.Expr]) -> Coded:
        """See :class:`Engine`."""
        raw = frames.interactions.lazy().collect()
        user_ids, user = _number(raw["user"])
        item_ids, item = _number(raw["item"])
        coded = raw.drop("user", "item").with_columns(user=user, item=item)
        dropped = {}
        for reason, stays in thresholds.items():
            before = len(coded)
            coded = coded.filter(stays)
            dropped[reason] = before - len(coded)
        coded = coded.drop("value", strict=False)
        if not _is_sorted(coded):
            coded = coded.sort("user", "time", maintain_order=True)
        return Coded(user_ids, item_ids, len(raw), _columns(coded), dropped)


IN_MEMORY = InMemory()


def _number(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Distinct ids, sorted, and the place of each row's id among them."""
    distinct = ids.unique().sort()
    return distinct, ids.replace_strict(distinct, np.arange(len(distinct)), return_dtype=pl.Int32)


def _is_sorted(coded: pl.DataFrame) -> bool:
    user, moments = coded["user"].to_numpy(), coded["time"].to_numpy()
    same, later = user[1:] == user[:-1], user[1:] > user[:-1]
    return bool((later | (same & (moments[1:] >= moments[:-1]))).all())


def _columns(coded: pl.DataFrame) -> dict[str, Column]:
    """Numbers as arrays; others, and those with gaps, as they are."""
    return {
        column.name: column.to_numpy()
        if column.dtype.is_numeric() and not column.has_nulls()
        else column
        for column in coded.iter_columns()
    }
