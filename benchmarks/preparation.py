"""Preparation of random clicks by each engine: time, peak memory, and the same data."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from benchmarks.memory import AnonymousPeak, apart
from benchmarks.timing import now
from twotower.errors import UserError
from twotower.files import whole_folder
from twotower.run.build import build_part

PER_FILE = 10_000_000  # clicks
PER_USER, PER_ITEM = 10, 100
START, SECONDS = 1_700_000_000, 30_000_000


def measure(config: DictConfig, sizes: list[int], engines: list[str]) -> dict[str, Any]:
    """Prepare a table of each size by each engine, in a process of its own.

    Raises:
        UserError: if two engines prepare different data.
    """
    settings: Any = OmegaConf.to_container(config, resolve=True)
    found: dict[int, dict[str, Any]] = {}
    for size in sorted(sizes):
        settings["data"]["reader"]["interactions"] = str(clicks(settings, size))
        found[size] = {}
        for engine in engines:
            settings["data"]["engine"] = engine
            found[size][engine] = apart(_prepare, settings)
        if len({own["fingerprint"] for own in found[size].values()}) > 1:
            raise UserError(f"of {size:,} clicks the engines prepare different data")
    return {"sizes": found}


def clicks(settings: Any, size: int) -> Path:
    """A folder of Parquet files with ``size`` clicks; active users and popular items have more."""
    folder = Path(settings["paths"]["cache_dir"]).absolute() / f"random_table-{size}"
    if folder.exists():
        return folder
    rng = np.random.default_rng(0)
    with whole_folder(folder) as partial:
        for place, first in enumerate(range(0, size, PER_FILE)):
            num = min(PER_FILE, size - first)
            user = (max(size // PER_USER, 1) * rng.random(num) ** 1.5).astype(np.int64)
            item = (max(size // PER_ITEM, 1) * rng.random(num) ** 3).astype(np.int64)
            moments = START + rng.integers(0, SECONDS, num)
            table = {"user_id": 7 * user + 13, "item_id": 11 * item + 5, "timestamp": moments}
            pl.DataFrame(table).write_parquet(partial / f"part-{place:05}.parquet")
    return folder


def _prepare(memory: AnonymousPeak, settings: Any) -> dict[str, Any]:
    """Prepare anew."""
    started = now()
    meta = build_part(settings, "data").preparation.load(force=True).meta
    return {
        "seconds": now() - started,
        "stages": meta["stages"],
        "fingerprint": meta["fingerprint"],
        "interactions": meta["num_interactions"],
    }


def table(record: dict[str, Any]) -> Table:
    """Seconds and memory by size and engine."""
    shown = Table(title="Preparation of random clicks", pad_edge=False)
    for column in ("clicks", "engine", "seconds", "GB", "mapped too", "longest stages"):
        shown.add_column(column, justify="right")
    for size, engines in record["sizes"].items():
        for engine, own in engines.items():
            stages = sorted(own["stages"].items(), key=lambda pair: -pair[1])[:3]
            longest = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in stages)
            memory = [f"{own[kind] / 1e9:.2f}" for kind in ("anonymous", "resident")]
            shown.add_row(f"{size:,}", engine, f"{own['seconds']:.1f}", *memory, longest)
    shown.caption = "peak memory of the process; the prepared data of the engines are the same"
    return shown
