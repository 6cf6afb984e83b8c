"""The facts of an export's model card: data, and metrics with their intervals."""

import inspect
import math
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch.nn.utils.rnn import pad_sequence

from twotower.data.datamodule import RetrievalDataModule
from twotower.data.prepare.filters import moment
from twotower.files import open_ordinary
from twotower.metrics.base import RankMetric
from twotower.run.ranks import ROUNDING

USERS_PER_CHUNK = 8192
NORMAL_95 = 1.96  # standard errors on each side


def about_data(data: RetrievalDataModule) -> dict[str, Any]:
    """Counts, split, filters and times of the data."""
    options, times = data.options, data.meta["times"]
    parts = {
        name: {end: moment(part[end], times["unit"]) for end in ("first", "last")}
        for name, part in times.get("parts", {}).items()
    }
    split = inspect.getdoc(type(options.split)) or ""
    return {
        "users": data.meta["num_users"],
        "items": data.schema.num_items,
        "items_in_training": data.schema.num_train_items,
        "interactions": data.meta["num_interactions"],
        "training_interactions": len(data.tables["position/train"]),
        "split": {
            "name": type(options.split).__name__,
            "meaning": split.partition("\n")[0],
            **vars(options.split),
        },
        "filters": options.filters._asdict(),
        "history_length": options.history_length,
        "mask_seen": data.mask_seen,
        "times": parts,
    }


def half_widths(ranks: Path, metrics: list[RankMetric], test: dict[str, float]) -> dict[str, float]:
    """Half of the 95 % interval of each metric over the test users; empty without their ranks.

    Args:
        ranks: ``test_ranks.parquet`` of the run.
        metrics: with all their cut-offs.
        test: the run's metrics. Where the ranks give others, there is no interval.
    """
    try:
        with open_ordinary(ranks) as file:
            users = pl.read_parquet(file, columns=["user", "rank"]).group_by("user").agg("rank")
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return {}
    found: dict[str, float] = {}
    for metric in metrics:
        if not metric.from_ranks:
            continue
        values = []
        for chunk in users["rank"].to_frame().iter_slices(USERS_PER_CHUNK):
            own = [torch.tensor(rank) for rank in chunk["rank"].to_list()]
            values.append(metric.per_user(pad_sequence(own, batch_first=True).long()).double())
        per_user = torch.cat(values)  # (num_users, num_cutoffs)
        error = per_user.std(0) / math.sqrt(len(per_user))
        for name, mean, half in zip(
            metric.labels(), per_user.mean(0).tolist(), (NORMAL_95 * error).tolist(), strict=True
        ):
            if math.isclose(mean, test.get(name, math.nan), abs_tol=ROUNDING):
                found[name] = half
    return found
