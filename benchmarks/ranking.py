"""Full ranking of random vectors at any size, without model and data."""

from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from rich.table import Table

from benchmarks.timing import now
from twotower.metrics.ndcg import NDCG
from twotower.retrieval.exact import target_ranks
from twotower.run import results

NUM_SEEN = 30  # items that each user has seen
EXTRAPOLATED_USERS = 300_000


def measure(config: DictConfig, users: int, items: int, dim: int, device: str) -> dict[str, Any]:
    """Users per second and peak memory of ranking ``items`` for ``users``."""
    before = results.peak_memory_bytes()
    item = F.normalize(torch.randn(items, dim, device=device))  # (items, dim)
    size = config.data.eval_batch_size
    metric = NDCG(1, [10]).to(device)
    started = now()
    for first in range(0, users, size):
        num = min(size, users - first)
        user = F.normalize(torch.randn(num, dim, device=device))  # (batch, dim)
        target = torch.randint(items, (num, 1), device=device)
        seen = torch.randint(items, (num * NUM_SEEN,), device=device)
        row = torch.arange(num, device=device).repeat_interleave(NUM_SEEN)
        in_group = torch.ones(num, 1, 1, dtype=torch.bool, device=device)
        metric.update(target_ranks(user, item, target, row, seen), in_group)
    seconds = now() - started
    return {
        "users": users,
        "items": items,
        "dim": dim,
        "device": device,
        "seconds": seconds,
        "users_per_second": users / seconds,
        "extrapolated_seconds": seconds * EXTRAPOLATED_USERS / users,
        "bytes": results.peak_memory_bytes() - before,
    }


def table(record: dict[str, Any]) -> Table:
    """Time and memory."""
    title = f"{record['users']:,} users x {record['items']:,} items, {record['dim']} dimensions"
    shown = Table("what", title=f"{title}, {record['device']}, {record['threads']} threads")
    shown.add_column("measured", justify="right")
    shown.add_row("seconds", f"{record['seconds']:.1f}")
    shown.add_row("MiB for vectors and scores", f"{record['bytes'] / 2**20:,.0f}")
    shown.add_row("users per second", f"{record['users_per_second']:,.1f}")
    minutes = record["extrapolated_seconds"] / 60
    shown.add_row(f"extrapolated to {EXTRAPOLATED_USERS:,} users", f"{minutes:,.1f} min")
    return shown
