"""Time of a training step as embedding tables grow; constant with row-sparse optimizers."""

from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from rich.table import Table
from torch import Tensor

from benchmarks.timing import in_turn, milliseconds, now
from twotower.errors import check_number
from twotower.run.build import build_part
from twotower.run.derive import MANY, fill
from twotower.types import Batch, Feature, Schema

WARM_UP = 3
NUM_CATEGORIES = 20


def measure(config: DictConfig, rows: list[int], rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds per step for each number of ``rows``, in turn, on uniform random pairs.

    A step runs model, loss and optimizer of the config with sampled negatives, on the CPU in this
    process; batches are made in advance, so loading is not measured.
    """
    for number in rows:
        check_number("rows", number, 1000)
    steppers = {number: partial(Stepper(config, number).run, steps) for number in rows}
    step_ms = {
        number: milliseconds(seconds) for number, seconds in in_turn(steppers, rounds).items()
    }
    smallest = step_ms[min(step_ms)]
    return {
        "step_ms": step_ms,
        "ratio": {number: value / smallest for number, value in step_ms.items()},
    }


class Stepper:
    """Model, loss and optimizer over tables of ``rows`` users and ``rows`` items.

    Args:
        config: as composed from ``train.yaml``.
        rows: number of users, and of items.
        items: number of items, if it is another.
    """

    def __init__(self, config: DictConfig, rows: int, items: int | None = None) -> None:
        items = items or rows
        schema = Schema(
            user=(Feature("user_id", "categorical", rows + 1),),
            item=(Feature("item_id", "categorical", items + 1),),
            num_items=items,
            num_train_items=items,
            num_categories=NUM_CATEGORIES,
            category_counts=(1,) * NUM_CATEGORIES,
        )
        fill(config, MANY)
        self.rows, self.items, self.size = rows, items, config.data.batch_size
        self.num_negatives = config.negatives.num
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

    def losses(self, steps: int) -> list[float]:
        """The loss of each step."""
        return [self._step(self._batch()).item() for _ in range(steps)]

    def _step(self, batch: Batch) -> Tensor:
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.model(batch), batch).total
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _batch(self) -> Batch:
        drawn = torch.randint(self.items, (self.size, 1 + self.num_negatives))
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


def table(record: dict[str, Any]) -> Table:
    """Step time by number of rows."""
    title = f"{record['model']}, {record['optimizer']}, batch {record['batch_size']}"
    shown = Table(title=f"{title}, {record['threads']} threads")
    for column in ("rows of each table", "ms per step", f"beside {min(record['step_ms']):,}"):
        shown.add_column(column, justify="right")
    for rows, value in record["step_ms"].items():
        shown.add_row(f"{rows:,}", f"{value:.2f}", f"{record['ratio'][rows]:.2f}")
    shown.caption = (
        f"medians of rounds in turn; peak memory {record['peak_memory_bytes'] / 2**30:.1f} GiB"
    )
    return shown
