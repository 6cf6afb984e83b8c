"""Measures what a training step costs as the embedding tables grow: row-sparse optimizers should not notice."""

import statistics
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.table import Table

from twotower.benchmark import now
from twotower.errors import check_number
from twotower.run import results
from twotower.run.build import build_part, seed_everything
from twotower.types import Batch, Feature, Schema
from twotower.wording import PlainConsole

WARM_UP = 3
NUM_CATEGORIES = 20


def benchmark_tables(config: DictConfig) -> dict[str, Any]:
    """Milliseconds per step for each of ``config.rows`` users and as many items, in turn, on uniform random pairs.

    The step is model, loss and optimizer of the config, with own negatives, on one device and in this process; data are made in
    advance, so it is the step alone.
    """
    for rows in config.rows:
        check_number("rows", rows, 1000)
    seed_everything(config.seed)
    steppers = {rows: Stepper(config, rows) for rows in config.rows}
    seconds: dict[int, list[float]] = {rows: [] for rows in config.rows}
    for _ in range(config.rounds):
        for rows, stepper in steppers.items():
            seconds[rows].append(stepper.run(config.steps))
    step_ms = {rows: 1000 * statistics.median(values) for rows, values in seconds.items()}
    smallest = min(step_ms)
    record = {
        "model": config.model._target_.split(".")[-1],
        "optimizer": config.optimizer._target_.split(".")[-1],
        "batch_size": config.data.batch_size,
        "threads": torch.get_num_threads(),
        "step_ms": step_ms,
        "ratio": {rows: value / step_ms[smallest] for rows, value in step_ms.items()},
        "peak_memory_bytes": results.peak_memory_bytes(),
        "versions": results.versions(),
    }
    _print(record, smallest)
    if config.output:
        results.write_json(Path(config.output), record)
    return record


class Stepper:
    """Model, loss and optimizer over tables of ``rows`` users and items.

    Args:
        config: as ``train.yaml`` composes it.
        rows: of both id tables.
    """

    def __init__(self, config: DictConfig, rows: int) -> None:
        schema = Schema(
            user=(Feature("user_id", "categorical", rows + 1),),
            item=(Feature("item_id", "categorical", rows + 1),),
            num_items=rows,
            num_train_items=rows,
            num_categories=NUM_CATEGORIES,
            category_counts=(1,) * NUM_CATEGORIES,
        )
        self.rows, self.size, self.num_negatives = rows, config.data.batch_size, config.negatives.num
        self.model = build_part(config, "model", schema=schema)
        self.loss = build_part(config, "loss", schema=schema)
        self.optimizer = build_part(config, "optimizer")(self.model.parameters())

    def run(self, steps: int) -> float:
        """Seconds per step."""
        batches = [self._batch() for _ in range(WARM_UP + steps)]
        for batch in batches[:WARM_UP]:
            self._step(batch)
        started = now()
        for batch in batches[WARM_UP:]:
            self._step(batch)
        return (now() - started) / steps

    def _step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        self.loss(self.model(batch), batch).total.backward()
        self.optimizer.step()

    def _batch(self) -> Batch:
        drawn = torch.randint(self.rows, (self.size, 1 + self.num_negatives))
        distinct, row = torch.unique(drawn, return_inverse=True)
        return Batch(
            user={"user_id": 1 + torch.randint(self.rows, (self.size,))},
            item={"item_id": distinct + 1},
            item_index=distinct,
            category=distinct % NUM_CATEGORIES,
            positive=row[:, 0],
            negative=row[:, 1:],
            num_draws=None,
            log_q=torch.zeros(len(distinct)),
            num_pairs=drawn.numel(),
        )


def _print(record: dict[str, Any], smallest: int) -> None:
    table = Table(title=f"{record['model']}, {record['optimizer']}, batch {record['batch_size']}, {record['threads']} threads")
    for column in ("rows of each table", "ms per step", f"beside {smallest:,}"):
        table.add_column(column, justify="right")
    for rows, value in record["step_ms"].items():
        table.add_row(f"{rows:,}", f"{value:.2f}", f"{record['ratio'][rows]:.2f}")
    table.caption = f"medians of rounds in turn; peak memory {record['peak_memory_bytes'] / 2**30:.1f} GiB"
    PlainConsole().print(table)
