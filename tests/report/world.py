"""Run folders made by hand: ranks first, then the metrics that they give."""

import csv
import io
import json
import zlib
from pathlib import Path

import numpy as np
import polars as pl

from twotower.metrics.hit_rate import HitRate
from twotower.metrics.mrr import MRR
from twotower.metrics.ndcg import NDCG
from twotower.metrics.recall import Recall
from twotower.report.comparison import Options
from twotower.report.ranks import Ranks, per_user
from twotower.report.record import Record
from twotower.report.runs import Run

METRICS = {
    "hit_rate@10": HitRate(1, [10]),
    "hit_rate@50": HitRate(1, [50]),
    "recall@10": Recall(1, [10]),
    "ndcg@10": NDCG(1, [10]),
    "mrr": MRR(1),
}
OPTIONS = Options("ndcg@10", METRICS, None, 0.95, 100, 0, [])
SETTINGS = {
    "model._target_": "twotower.models.dat.DAT",
    "data.mask_seen": True,
    "loss.lambda1": 0.5,
    "loss.lambda2": 0.5,
}


def make_ranks(
    gain, noise, num_users=400, num_items=500, num_categories=4, targets=1, users_seed=0
):
    """Ranks of shared users, some easy and some hard; a positive ``gain`` moves all of them up."""
    users = np.random.default_rng(users_seed)
    user = np.repeat(np.arange(num_users), targets)
    category = users.integers(0, num_categories, len(user))
    item = np.concatenate(
        [users.choice(num_items, targets, replace=False) for _ in range(num_users)]
    )
    ease = (
        users.normal(size=len(user))
        + 0.3 * np.random.default_rng(noise).normal(size=len(user))
        + gain
    )
    rank = np.clip(40 * np.exp(-1.5 * ease), 1, num_items).astype(int)
    order = np.lexsort((item, user))
    return Ranks(*(column[order].astype(np.int32) for column in (user, item, category, rank)))


def run_of(seed=0, folder=Path("run"), ranks="none", **fields):
    """A run that was read already."""
    known = {"model": "dat", "data": "toy", "split_fingerprint": "f", "overrides": []}
    record = Record(**{**known, "seed": seed, "settings": {}, "test": {}, **fields})
    return Run(folder, folder.name, record, ranks)


def make_run(folder: Path, ranks, seed=0, overrides=(), curve=(), **changes):
    """A run folder as training leaves it; ``changes`` of ``metrics.json``, None removes a key."""
    folder.mkdir(parents=True)
    test = {name: float(per_user(ranks, metric).mean()) for name, metric in METRICS.items()}
    record = {
        "model": "dat",
        "data": "toy",
        "split_fingerprint": "f1",
        "seed": seed,
        "overrides": [*overrides, f"seed={seed}"],
        "settings": SETTINGS,
        "test": test,
        "categories": [
            {"name": f"c{place}", "train_interactions": 100 - place}
            for place in range(ranks.category.max() + 1)
        ],
    }
    record = {key: value for key, value in {**record, **changes}.items() if value is not None}
    pl.DataFrame(ranks._asdict()).write_parquet(folder / "test_ranks.parquet")
    if curve:
        rows = [f"{epoch},{value}" for epoch, value in enumerate(curve)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,val/ndcg@10", *rows]) + "\n")
    (folder / "metrics.json").write_text(json.dumps(record))
    return folder


def make_variant(root: Path, gain, seeds=(0, 1, 2), overrides=(), settings=None, **changes):
    """Runs of one variant that differ by their seed."""
    name = ",".join(overrides) or "plain"
    for seed in seeds:
        noise = [seed, zlib.crc32(name.encode())]  # each training makes its own mistakes
        ranks = make_ranks(gain + 0.02 * np.random.default_rng(noise).normal(), noise)
        make_run(
            root / f"{name},seed={seed}",
            ranks,
            seed,
            overrides,
            settings={**SETTINGS, **(settings or {})},
            **changes,
        )


def rows(script, where="sweep/report"):
    text = (script.folder / where / "tables.csv").read_text()
    return {row["variant"]: row for row in csv.DictReader(io.StringIO(text))}
