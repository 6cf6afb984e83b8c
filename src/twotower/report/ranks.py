"""What each test user got, from the ranks that a run keeps."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from twotower.metrics.base import RankMetric
from twotower.ranks import FILE

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
    path = folder / FILE
    if not path.exists():
        return f"no {FILE}"
    try:
        frame = pl.read_parquet(path, columns=list(Ranks._fields))
    except Exception as error:  # polars raises many kinds for a damaged file
        return f"{FILE} is damaged ({str(error).splitlines()[0]})"
    if not len(frame) or frame["rank"].min() < 1:  # type: ignore[operator]
        return f"{FILE} is damaged (it holds no ranks)"
    return Ranks(*(frame[name].to_numpy() for name in Ranks._fields))


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
