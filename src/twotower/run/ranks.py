"""The ranks of a run's test, one row per held-out interaction, for comparisons in reports."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from twotower.data.datamodule import RetrievalDataModule
from twotower.files import whole_file
from twotower.training.task import RetrievalTask

ROUNDING = 1e-4  # another device may break a tie otherwise
MAX_NAMED = 200  # categories that a record names; there may be thousands


def write(path: Path, task: RetrievalTask, data: RetrievalDataModule) -> None:
    """Write the ranks of the task's last test as Parquet, ordered by user and item.

    The columns are whole numbers: ``user``, ``item`` (index in the corpus), ``category`` (place in
    :func:`named_categories`, -1 where missing) and ``rank``.
    """
    place = np.full(data.schema.num_categories + 1, -1, np.int32)  # the last is for -1
    place[_head_to_tail(data)] = np.arange(data.schema.num_categories)
    user, item, rank = task.ranks.cpu().numpy().T
    category = data.tables["category"].cpu().numpy()[item]
    frame = pl.DataFrame({"user": user, "item": item, "category": place[category], "rank": rank})
    with whole_file(path) as partial:
        frame.cast(pl.Int32).sort("user", "item").write_parquet(partial, compression="zstd")


def named_categories(data: RetrievalDataModule) -> list[dict[str, Any]]:
    """Name and training interactions of the ``MAX_NAMED`` largest categories, in order of size."""
    names, counts = data.meta["categories"], data.schema.category_counts
    return [
        {"name": names[index], "train_interactions": int(counts[index])}
        for index in _head_to_tail(data)[:MAX_NAMED]
    ]


def _head_to_tail(data: RetrievalDataModule) -> np.ndarray:
    """``(num_categories,)`` the largest first."""
    return np.argsort(-np.array(data.schema.category_counts, dtype=np.int64), kind="stable")
