"""Measures full ranking of random vectors at any size, and what is said of it in advance: the part of evaluation that grows."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from rich.table import Table

from twotower.benchmark import now
from twotower.errors import check_number
from twotower.metrics.ndcg import NDCG
from twotower.retrieval.exact import target_ranks
from twotower.retrieval.forecast import Forecast, duration
from twotower.run import results
from twotower.wording import PlainConsole

K = 10
NUM_SEEN = 30  # items that each user has seen
EXTRAPOLATED_USERS = 300_000


def benchmark_ranking(config: DictConfig) -> dict[str, Any]:
    """Users per second and peak memory of ranking ``items`` for ``users`` of the config; forecast beside measured."""
    for name in ("users", "items", "dim"):
        check_number(name, config[name], 1)
    num_users, num_items, dim = (int(config[name]) for name in ("users", "items", "dim"))
    torch.manual_seed(config.seed)
    device, before = torch.device(config.device), results.peak_memory_bytes()
    item = torch.randn(num_items, dim, device=device)
    item /= item.norm(dim=1, keepdim=True)  # (items, dim)
    size = int(config.data.eval_batch_size)
    num_steps = -(-num_users // size)
    forecast = Forecast("test", num_steps, num_users, item)
    metric = NDCG(1, [K]).to(device)
    started = now()
    for first in range(0, num_users, size):
        num = min(size, num_users - first)
        user = F.normalize(torch.randn(num, dim, device=device))  # (batch, dim)
        target = torch.randint(num_items, (num, 1), device=device)
        seen = torch.randint(num_items, (num * NUM_SEEN,), device=device)
        row = torch.arange(num, device=device).repeat_interleave(NUM_SEEN)
        metric.update(target_ranks(user, item, target, row, seen), torch.ones_like(target, dtype=torch.bool)[:, :, None])
        forecast.step(user)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = now() - started
    record = {
        "users": num_users,
        "items": num_items,
        "dim": dim,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "forecast_seconds": forecast.seconds,
        "users_per_second": num_users / seconds,
        "extrapolated_seconds": {EXTRAPOLATED_USERS: seconds * EXTRAPOLATED_USERS / num_users},
        "forecast_bytes": forecast.bytes,
        "bytes": results.peak_memory_bytes() - before,
        "versions": results.versions(),
    }
    _print(record)
    if config.output:
        results.write_json(Path(config.output), record)
    return record


def _print(record: dict[str, Any]) -> None:
    title = f"{record['users']:,} users x {record['items']:,} items, {record['dim']} dimensions, {record['device']}"
    table = Table("what", title=f"{title}, {record['threads']} threads")
    for column in ("forecast", "measured"):
        table.add_column(column, justify="right")
    foretold = record["forecast_seconds"] is not None
    table.add_row("seconds", f"{record['forecast_seconds']:.1f}" if foretold else "", f"{record['seconds']:.1f}")
    memory = f"{record['forecast_bytes'] / 2**20:,.0f}" if foretold else ""
    table.add_row("MiB for vectors and scores", memory, f"{record['bytes'] / 2**20:,.0f}")
    table.add_row("users per second", "", f"{record['users_per_second']:,.1f}")
    for users, seconds in record["extrapolated_seconds"].items():
        table.add_row(f"extrapolated to {users:,} users", "", duration(seconds))
    PlainConsole().print(table)
