"""The ranks of a run's test, one row per held-out interaction: what a report compares users by."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

FILE = "test_ranks.parquet"
ROUNDING = 1e-4  # another device may break a tie otherwise
MAX_NAMED = 200  # categories that a record names; there may be thousands


def write(run_dir: Path, task: Any, data: Any) -> None:
    """Write the task's last test as Parquet of whole numbers, ordered by user and item; by rename.

    The columns are ``user``, ``item`` (index in the corpus), ``category`` (place in :func:`named_categories`, -1 where missing)
    and ``rank``.
    """
    place = np.full(data.schema.num_categories + 1, -1)  # the last is for -1
    place[_head_to_tail(data)] = np.arange(data.schema.num_categories)
    user, item, rank = task.ranks.cpu().numpy().T
    category = data.tables["category"].cpu().numpy()[item]
    frame = pl.DataFrame({"user": user, "item": item, "category": place[category], "rank": rank})
    partial = run_dir / f".{FILE}.partial"
    frame.cast(pl.Int32).sort("user", "item").write_parquet(partial, compression="zstd")
    partial.replace(run_dir / FILE)


def named_categories(data: Any) -> list[dict[str, Any]]:
    """Name and training interactions of each category, the largest first; of very many, the largest ones."""
    names, counts = data.meta["categories"], data.schema.category_counts
    return [{"name": names[index], "train_interactions": int(counts[index])} for index in _head_to_tail(data)[:MAX_NAMED]]


def _head_to_tail(data: Any) -> np.ndarray:
    """``(num_categories,)`` the largest first."""
    return np.argsort(-np.array(data.schema.category_counts, dtype=np.int64), kind="stable")
