"""Latency of a single query in exact and approximate indexes over many items."""

import os
import time
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.table import Table

from twotower.export.packages import require
from twotower.run.build import build_part


def measure(
    config: DictConfig,
    num_items: int,
    dim: int,
    k: int,
    num_queries: int,
    build_threads: int,
    indexes: DictConfig,
) -> dict[str, Any]:
    """Latency and recall of each index, over random directions.

    Searches one query at a time on one thread. The first index must be exact: recall is
    the share of its items that another index finds.
    """
    require("faiss")
    rng = np.random.default_rng(config.seed)
    items, queries = (_directions(rng, num, dim) for num in (num_items, num_queries))
    rows: list[dict[str, Any]] = []
    exact: np.ndarray | None = None
    for name in map(str, indexes):
        index = build_part(indexes, name)
        built, seconds = _build(index, items, build_threads)
        for value in index.curve or [None]:
            row, found = _measure(index, built, value, queries, k)
            exact = found if exact is None else exact  # the first index is the flat one
            shares = [np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]
            row["recall"] = float(np.mean(shares))
            rows.append({"index": name, "build_seconds": seconds, **row})
    sizes = {"num_items": num_items, "dim": dim, "k": k, "num_queries": num_queries}
    return {**sizes, "rows": rows, "cores": os.cpu_count(), "load": os.getloadavg()[0]}


def _directions(rng: np.random.Generator, num: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((num, dim), dtype=np.float32)
    directions: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return directions  # (num, dim)


def _build(index: Any, items: np.ndarray, threads: int) -> tuple[Any, float]:
    import faiss

    faiss.omp_set_num_threads(threads or os.cpu_count() or 1)
    started = time.perf_counter()
    return index.build(items), time.perf_counter() - started


def _measure(
    index: Any, built: Any, value: int | None, queries: np.ndarray, k: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Times of single searches, and the items found, ``(num_queries, k)``."""
    import faiss

    from twotower.export.index import tune

    if value is not None:
        tune(built, index.parameter, value)
    faiss.omp_set_num_threads(1)
    times, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(built.search(query[None], k)[1][0])
        times.append(1000 * (time.perf_counter() - started))
    low, high = np.percentile(times, [50, 95]).tolist()
    setting = {"parameter": index.parameter, "value": value}
    return {**setting, "milliseconds": low, "milliseconds_95": high}, np.array(found)


def table(record: dict[str, Any]) -> Table:
    """Time and recall of each index and setting."""
    title = f"top-{record['k']} of {record['num_items']:,} items, {record['dim']} dimensions"
    shown = Table(title=f"{title}, one query at a time")
    for name in ("index", "ms, median", "ms, 95 %", f"recall@{record['k']}", "built in s"):
        shown.add_column(name, justify="left" if name == "index" else "right", no_wrap=True)
    for row in record["rows"]:
        name = row["index"] + (f", {row['parameter']}={row['value']}" if row["value"] else "")
        figures = (
            f"{row['milliseconds']:.2f}",
            f"{row['milliseconds_95']:.2f}",
            f"{row['recall']:.4f}",
        )
        shown.add_row(name, *figures, f"{row['build_seconds']:.0f}")
    machine = f"{record['cores']} cores, load {record['load']:.1f}"
    shown.caption = f"one thread, {record['num_queries']} queries, {machine}"
    return shown
