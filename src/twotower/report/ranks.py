"""What each test user got, from the ranks that a run keeps."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from twotower.files import read_bytes
from twotower.metrics.base import RankMetric
from twotower.report.schema import first_line
from twotower.run.run_folder import RunFolder

MAX_BYTES = 2 << 30
MAX_TARGETS = 200_000_000
LEAST = {"user": 0, "item": 0, "category": -1, "rank": 1}
USERS_PER_CHUNK = 8192  # bounds memory where some users have a thousand targets


class Ranks(NamedTuple):
    """Targets of one test, ordered by user and item; each ``(num_targets,)``."""

    user: np.ndarray
    item: np.ndarray
    category: np.ndarray
    rank: np.ndarray

    def targets(self) -> str:
        """Equal for ranks of the same users' same items alone."""
        return hashlib.sha256(self.user.tobytes() + self.item.tobytes()).hexdigest()

    def of(self, mask: np.ndarray) -> "Ranks":
        """The targets where ``mask`` is True."""
        return Ranks(*(column[mask] for column in self))


def read_ranks(folder: Path) -> Ranks | str:
    """The ranks in a run folder, or why there are none."""
    path = RunFolder(folder).ranks
    if not os.path.lexists(path):
        return f"no {path.name}"
    try:
        content = io.BytesIO(read_bytes(path, MAX_BYTES))
        frame = pl.read_parquet(content, columns=list(Ranks._fields), n_rows=MAX_TARGETS + 1)
        _check(frame)
    except Exception as error:  # polars raises many kinds for a damaged file
        return f"{path.name} is damaged ({first_line(error)})"
    return Ranks(*(frame[name].cast(pl.Int32).to_numpy() for name in Ranks._fields))


def _check(frame: pl.DataFrame) -> None:
    """Refuse what :func:`twotower.run.ranks.write` does not write.

    Raises:
        ValueError: saying what.
    """
    if not 0 < len(frame) <= MAX_TARGETS:
        raise ValueError(
            "it holds no ranks" if not len(frame) else f"it has more than {MAX_TARGETS:,} rows"
        )
    for name, column in zip(frame.columns, frame, strict=True):
        if not column.dtype.is_integer() or column.null_count():
            raise ValueError(f"{name} holds what is no whole number")
        low: Any = column.min()
        high: Any = column.max()
        if low < LEAST[name] or high >= 2**31:
            raise ValueError(
                "it holds no ranks"
                if name == "rank" and low < 1
                else f"{name} holds {low} to {high}"
            )
    if not frame["user"].is_sorted():
        raise ValueError("its users are not in order")


def per_user(ranks: Ranks, metric: RankMetric) -> np.ndarray:
    """``(num_users,)`` values of a metric with one cut-off, users in order, by the metric's own arithmetic."""
    return torch.cat([metric.per_user(rank)[:, 0].double() for rank in _padded(ranks)]).numpy()


def _padded(ranks: Ranks) -> Iterator[Tensor]:
    """Chunks of ``(num_users, num_targets)`` ranks, 0 where a user has fewer targets than the chunk's most."""
    start = np.flatnonzero(np.diff(ranks.user, prepend=-1))  # (num_users,)
    stop = np.append(start[1:], len(ranks.user))
    for first in range(0, len(start), USERS_PER_CHUNK):
        own = slice(first, first + USERS_PER_CHUNK)
        count = stop[own] - start[own]
        chunk = np.zeros((len(count), count.max()), dtype=np.int64)
        chunk[np.arange(count.max()) < count[:, None]] = ranks.rank[start[own][0] : stop[own][-1]]
        yield torch.from_numpy(chunk)
