"""The ranks of a run's test, one row per held-out interaction: what a report compares users by."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from twotower.data.datamodule import RetrievalDataModule
from twotower.data.prepare import store
from twotower.files import whole_file, write_json
from twotower.run.run_folder import RunFolder
from twotower.training.task import RetrievalTask
from twotower.types import RunInfo

ROUNDING = 1e-4  # another device may break a tie otherwise
MAX_NAMED = 200  # categories that a record names; there may be thousands


def write(folder: RunFolder, task: RetrievalTask, data: RetrievalDataModule) -> None:
    """Write the task's last test as Parquet of whole numbers, ordered by user and item; by rename.

    The columns are ``user``, ``item`` (index in the corpus), ``category`` (place in :func:`named_categories`, -1 where missing)
    and ``rank``.
    """
    place = np.full(data.schema.num_categories + 1, -1)  # the last is for -1
    place[_head_to_tail(data)] = np.arange(data.schema.num_categories)
    user, item, rank = task.ranks.cpu().numpy().T
    category = data.tables["category"].cpu().numpy()[item]
    frame = pl.DataFrame({"user": user, "item": item, "category": place[category], "rank": rank})
    with whole_file(folder.ranks) as partial:
        frame.cast(pl.Int32).sort("user", "item").write_parquet(partial, compression="zstd")


def named_categories(data: RetrievalDataModule) -> list[dict[str, Any]]:
    """Name and training interactions of each category, the largest first; of very many, the largest ones."""
    names, counts = data.meta["categories"], data.schema.category_counts
    return [{"name": names[index], "train_interactions": int(counts[index])} for index in _head_to_tail(data)[:MAX_NAMED]]


def complete(ckpt_path: Path, info: RunInfo, task: RetrievalTask, data: RetrievalDataModule) -> None:
    """Give a run of an earlier version what a report reads: ranks, settings, categories and the fingerprint of the split.

    Only if the checkpoint just tested is the one that the run had tested.
    """
    folder = RunFolder.of(ckpt_path)
    if not folder.record.exists():
        return
    record = folder.read_record()
    if folder.ranks.exists() and "split_fingerprint" in record:
        return
    if not _same(record.get("test", {}), task.results["test"]):
        print(f"ranks are not kept: {folder.record} has other test metrics, so it is of another checkpoint")
        return
    write(folder, task, data)
    added = {"settings": info.settings, "categories": named_categories(data)}
    added["split_fingerprint"] = store.split_fingerprint(data.meta, data.ids)
    write_json(folder.record, {**added, **record})
    print(f"ranks are kept in {folder.ranks}")


def _same(one: dict[str, float], other: dict[str, float]) -> bool:
    if not one or not one.keys() <= other.keys():  # new ones may have come since
        return False
    return all(abs(one[name] - other[name]) < ROUNDING for name in one)


def _head_to_tail(data: RetrievalDataModule) -> np.ndarray:
    """``(num_categories,)`` the largest first."""
    return np.argsort(-np.array(data.schema.category_counts, dtype=np.int64), kind="stable")
