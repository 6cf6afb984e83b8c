"""The rank of each test target, as runs keep it, and metrics of each user from these."""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from twotower.files import open_ordinary
from twotower.metrics.base import RankMetric
from twotower.report.record import reason
from twotower.run.ranks import ROUNDING
from twotower.run.run_folder import RunFolder

USERS_PER_CHUNK = 8192  # bounds memory where some users have a thousand targets


class Ranks(NamedTuple):
    """Targets of one test, ordered by user and item; each ``(num_targets,)``."""

    user: np.ndarray
    item: np.ndarray
    category: np.ndarray
    rank: np.ndarray

    def targets(self) -> str:
        """A hash that is equal for the same items of the same users."""
        return hashlib.sha256(self.user.tobytes() + self.item.tobytes()).hexdigest()

    def of(self, mask: np.ndarray | slice) -> "Ranks":
        """The targets where ``mask`` is True."""
        return Ranks(*(column[mask] for column in self))


def read_ranks(folder: Path, metrics: dict[str, RankMetric], test: dict[str, float]) -> Ranks | str:
    """The ranks in a run folder, or why they cannot be used.

    Args:
        folder: of the run.
        metrics: by name, the one that is compared first, each with one cut-off.
        test: the run's values of these, which the ranks must give too.
    """
    for compared in list(metrics)[:1]:
        if not metrics[compared].from_ranks:
            return f"{compared} is no mean over users"
    path = RunFolder(folder).ranks
    try:
        with open_ordinary(path) as file:
            frame = pl.read_parquet(file, columns=list(Ranks._fields)).cast(pl.Int32)
    except FileNotFoundError:
        return f"no {path.name}"
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        return f"{path.name} is damaged ({reason(error)})"
    ranks = Ranks(*(column.to_numpy() for column in frame))
    for name, metric in metrics.items():
        if not metric.from_ranks:
            continue
        if not math.isclose(per_user(ranks, metric).mean(), test[name], abs_tol=ROUNDING):
            return f"its ranks give another {name} than its metrics.json"
    return ranks


def per_user(ranks: Ranks, metric: RankMetric) -> np.ndarray:
    """``(num_users,)`` values of a metric with one cut-off, users in order."""
    _, starts, counts = np.unique(ranks.user, return_index=True, return_counts=True)  # (num_users,)
    values = []
    for place in range(0, len(starts), USERS_PER_CHUNK):
        start, count = (column[place : place + USERS_PER_CHUNK] for column in (starts, counts))
        num_targets = count.sum()
        row = np.repeat(np.arange(len(count)), count)
        column = np.arange(num_targets) - np.repeat(start - start[0], count)
        padded = torch.zeros(len(count), count.max(), dtype=torch.long)  # 0 pads
        padded[row, column] = torch.tensor(ranks.rank[start[0] : start[0] + num_targets]).long()
        values.append(metric.per_user(padded)[:, 0].double())
    return torch.cat(values).numpy()
