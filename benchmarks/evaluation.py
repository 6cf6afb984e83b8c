"""Full ranking with our metrics against torchmetrics' retrieval metrics, on the same vectors."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from rich.table import Table
from torch import Tensor
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from benchmarks.timing import in_turn, now
from twotower.metrics.base import RankMetric
from twotower.metrics.hit_rate import HitRate
from twotower.metrics.mrr import MRR
from twotower.metrics.ndcg import NDCG
from twotower.retrieval.exact import encode_corpus, encode_users, target_ranks
from twotower.run.build import build
from twotower.types import EvalBatch

K = 10


def measure(config: DictConfig, rounds: int) -> dict[str, Any]:
    """Seconds to rank the corpus for all test users and to compute hit rate, NDCG at 10 and MRR.

    Both implementations run in turn. The vectors come from an untrained model of the config and
    are encoded in advance.
    """
    data, task = build(config)
    task.eval()
    values: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        corpus = data.corpus(torch.device("cpu"))
        item = encode_corpus(task.model, corpus, data.schema.num_items)
        batches = [data.eval_batch(index) for index in data.test_dataloader()]
        users = [encode_users(task.model, batch.user) for batch in batches]

        def timed(name: str, evaluate: Callable[..., dict[str, float]]) -> float:
            started = now()
            values[name] = evaluate(users, item, batches)
            return now() - started

        ways = {
            "ours": partial(timed, "ours", ours),
            "torchmetrics": partial(timed, "torchmetrics", theirs),
        }
        seconds = {name: statistics.median(own) for name, own in in_turn(ways, rounds).items()}
    return {
        "data": data.reader.name,
        "users": sum(map(len, users)),
        "items": len(item),
        "seconds": seconds,
        "ratio": seconds["torchmetrics"] / seconds["ours"],
        "values": values,
    }


def ours(users: list[Tensor], item: Tensor, batches: list[EvalBatch]) -> dict[str, float]:
    """Metrics from ranks, which are computed for one batch of users after another."""
    metrics: list[RankMetric] = [HitRate(1, [K]), NDCG(1, [K]), MRR(1)]
    for user, batch in zip(users, batches, strict=True):
        rank = target_ranks(user, item, batch.target, batch.seen_row, batch.seen_item)
        for metric in metrics:
            metric.update(rank, batch.group[:, :, :1])
    return {metric.labels()[0]: metric.compute().item() for metric in metrics}


def theirs(users: list[Tensor], item: Tensor, batches: list[EvalBatch]) -> dict[str, float]:
    """Metrics of torchmetrics from the scores of all candidate pairs, which it groups by user."""
    metrics = {
        f"hit_rate@{K}": RetrievalHitRate(top_k=K),
        f"ndcg@{K}": RetrievalNormalizedDCG(top_k=K),
        "mrr": RetrievalMRR(),
    }
    for user, batch in zip(users, batches, strict=True):
        score = (user @ item.T).double()  # (batch, num_items)
        score += 1 - score.min()  # torchmetrics counts a target with a score <= 0 as a miss
        relevant = torch.zeros_like(score, dtype=torch.bool)
        row = torch.arange(len(score))[:, None].expand_as(batch.target)
        relevant[row[batch.target >= 0], batch.target[batch.target >= 0]] = True
        candidate = torch.ones_like(relevant)
        candidate[batch.seen_row, batch.seen_item] = False
        candidate |= relevant
        index = batch.user_index[:, None].expand_as(score)
        for metric in metrics.values():
            metric.update(score[candidate], relevant[candidate], indexes=index[candidate])
    return {name: metric.compute().item() for name, metric in metrics.items()}


def table(record: dict[str, Any]) -> Table:
    """Time and values of both implementations."""
    title = f"{record['users']:,} users x {record['items']:,} items of {record['data']}"
    title = f"{title}, {record['threads']} threads"
    shown = Table("what", title=title, caption=f"torchmetrics / ours: {record['ratio']:.0f}")
    for name in ("seconds", *record["values"]["ours"]):
        shown.add_column(name, justify="right")
    for name, values in record["values"].items():
        shown.add_row(
            name, f"{record['seconds'][name]:.2f}", *(f"{value:.6f}" for value in values.values())
        )
    return shown
