"""How long one search among very many items takes: what ``src/benchmark_index.py`` does."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from twotower.errors import check_number
from twotower.export.index import Index
from twotower.export.packages import require
from twotower.files import write_json
from twotower.run import results
from twotower.run.build import build_part


def benchmark_index(config: DictConfig) -> dict[str, Any]:
    """Build each index from random directions, search one query at a time on one thread, compare with exact search."""
    require("faiss")
    for name in ("num_items", "dim", "k", "num_queries"):
        check_number(name, config[name], 1)
    rng = np.random.default_rng(config.seed)
    items, queries = (_directions(rng, num, config.dim) for num in (config.num_items, config.num_queries))
    rows: list[dict[str, Any]] = []
    exact: np.ndarray | None = None
    for name in config.indexes:
        index = build_part(config, f"indexes.{name}")
        built, seconds = _build(index, items, config.build_threads)
        for value in index.curve or [None]:
            row, found = _measure(index, built, value, queries, config.k)
            exact = found if exact is None else exact  # the first is the flat one
            row["recall"] = float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))
            rows.append({"index": name, "build_seconds": seconds, **row})
    record = {**{name: config[name] for name in ("num_items", "dim", "k", "num_queries")}, "rows": rows}
    record |= {"cores": os.cpu_count(), "load": os.getloadavg()[0], "versions": results.versions()}
    _print(record)
    if config.output:
        write_json(Path(config.output), record)
    return record


def _directions(rng: np.random.Generator, num: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((num, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _build(index: Index, items: np.ndarray, threads: int) -> tuple[Any, float]:
    import faiss

    faiss.omp_set_num_threads(threads or os.cpu_count() or 1)
    started = time.perf_counter()
    return index.build(items), time.perf_counter() - started


def _measure(index: Index, built: Any, value: int | None, queries: np.ndarray, k: int) -> tuple[dict[str, Any], np.ndarray]:
    """Times of single searches, and ``(num_queries, k)`` the items found."""
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


def _print(record: dict[str, Any]) -> None:
    table = Table(title=f"top-{record['k']} of {record['num_items']:,} items, {record['dim']} dimensions, one query at a time")
    for name in ("index", "ms, median", "ms, 95 %", f"recall@{record['k']}", "built in s"):
        table.add_column(name, justify="left" if name == "index" else "right", no_wrap=True)
    for row in record["rows"]:
        name = row["index"] + (f", {row['parameter']}={row['value']}" if row["value"] else "")
        figures = (f"{row['milliseconds']:.2f}", f"{row['milliseconds_95']:.2f}", f"{row['recall']:.4f}")
        table.add_row(name, *figures, f"{row['build_seconds']:.0f}")
    table.caption = f"one thread, {record['num_queries']} queries, {record['cores']} cores, load {record['load']:.1f}"
    Console().print(table)
