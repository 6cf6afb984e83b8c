"""Measures the framework against a hand-written loop of the same mathematics, in turn, in one process."""

import statistics
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from twotower import results
from twotower.run import build, build_part, seed_everything
from twotower.types import UserError

WARM_UP = 20


def benchmark(config: DictConfig) -> dict[str, Any]:
    """Rates of training, framework and bare loop in turn, and the time of one full evaluation.

    Raises:
        UserError: for anything but DAT with binary cross-entropy and own negatives, which is what the bare loop is.
    """
    if "DAT" not in config.model._target_ or "BCE" not in config.loss.task._target_:
        raise UserError("the bare loop is DAT with binary cross-entropy: use model=dat loss=dat loss/task=bce")
    rounds, steps = config.rounds, config.steps
    OmegaConf.set_struct(config, False)
    settings = OmegaConf.create({key: value for key, value in config.items() if key not in ("rounds", "steps", "output")})
    seed_everything(config.seed)
    data, task = build(settings, {})
    bare = BareDAT(data, settings)
    seconds: dict[str, list[float]] = {"framework": [], "bare loop": []}
    for _ in range(rounds):
        seconds["framework"].append(framework_step(settings, data, task, steps))
        seconds["bare loop"].append(bare.run(steps))
    evaluation = evaluation_seconds(settings, data, task)
    batch = data.batch_size
    step = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["framework"], seconds["bare loop"], strict=True)]
    record = {
        "data": data.reader.name,
        "batch_size": batch,
        "device": str(task.device),
        "threads": torch.get_num_threads(),
        "step_ms": {name: 1000 * value for name, value in step.items()},
        "positives_per_second": {name: batch / value for name, value in step.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "evaluation_seconds": evaluation,
        "evaluated_users": len(data.tables["position/test"]),
        "peak_memory_bytes": results.peak_memory_bytes(),
        "versions": results.versions(),
    }
    _print(record)
    if config.output:
        results.write_json(Path(config.output), record)
    return record


class StepClock(Callback):
    """Mean seconds per step after the warm-up."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start after the warm-up, read at the end."""
        if trainer.global_step == WARM_UP:
            self.started = now()
        if trainer.global_step == trainer.max_steps:
            self.seconds = (now() - self.started) / (trainer.max_steps - WARM_UP)


def framework_step(config: DictConfig, data: Any, task: Any, steps: int) -> float:
    """Seconds per step of ``trainer.fit``, everything included."""
    clock = StepClock()
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    config.trainer = {**config.trainer, **quiet, "max_steps": WARM_UP + steps, "max_epochs": -1}
    build_part(config, "trainer", logger=False, callbacks=[clock]).fit(task, data)
    return clock.seconds


def evaluation_seconds(config: DictConfig, data: Any, task: Any) -> float:
    """Seconds to encode the corpus and rank it for every test user."""
    config.trainer = {**config.trainer, "limit_test_batches": 1.0}
    trainer = build_part(config, "trainer", logger=False, callbacks=[])
    started = now()
    trainer.test(task, data, verbose=False)
    return now() - started


class BareDAT:
    """One DAT step written by hand: no Lightning, no modules of ours; the same prepared arrays and the same mathematics."""

    def __init__(self, data: Any, config: DictConfig) -> None:
        self.config, self.data = config, data
        self.table, schema = data.tables, data.schema
        model, width = config.model, config.model.embedding_dim
        self.user = {f.name: f for f in schema.user}
        self.item = {f.name: f for f in schema.item}
        self.embed = nn.ModuleDict()
        for side, features in (("user", self.user), ("item", self.item)):
            for feature in features.values():
                multi = feature.kind in ("multi", "history")
                self.embed[f"{side} {feature.name}"] = (
                    nn.Linear(1, width)
                    if feature.kind == "numeric"
                    else nn.EmbeddingBag(feature.num_values, width, mode="mean", padding_idx=0)
                    if multi
                    else nn.Embedding(feature.num_values, width)
                )
        self.a_u = nn.Embedding(self.user["user_id"].num_values, model.dim)
        self.a_v = nn.Embedding(self.item["item_id"].num_values, model.dim)
        relu = model.last_activation == "relu"
        self.user_tower = _tower(len(self.user) * width + model.dim, model.hidden_dims, model.dim, relu)
        self.item_tower = _tower(len(self.item) * width + model.dim, model.hidden_dims, model.dim, relu)
        parts = [self.embed, self.a_u, self.a_v, self.user_tower, self.item_tower]
        parameters = [parameter for part in parts for parameter in part.parameters()]
        options = {key: value for key, value in config.optimizer.items() if not key.startswith("_")}
        self.optimizer = torch.optim.AdamW(parameters, **options)

    def run(self, steps: int) -> float:
        """Seconds per step after the warm-up."""
        position = self.table["position/train"]
        size = self.data.batch_size
        order = position[torch.randperm(len(position))]
        started = 0.0
        for step in range(WARM_UP + steps):
            if step == WARM_UP:
                started = now()
            start = step * size % max(1, len(order) - size)
            self.step(order[start : start + size])
        return (now() - started) / steps

    def step(self, position: Tensor) -> None:
        """Gather, forward, backward, update."""
        t, loss_config, num_negatives = self.table, self.config.loss, self.config.negatives.num
        user, positive = t["interactions/user"][position].long(), t["interactions/item"][position].long()
        num, last = len(positive), self.data.schema.num_train_items - 1
        negative = torch.randint(last, (num, num_negatives))
        negative += negative >= positive[:, None]
        item, row = torch.unique(torch.cat([positive, negative.flatten()]), return_inverse=True)
        features = {name: t[f"user/{name}"][user] for name in self.user if name != "history"}
        if "history" in self.user:
            before = position[:, None] + torch.arange(-self.data.options.history_length, 0)
            known = before >= t["offset"][user][:, None]
            features["history"] = (t["interactions/item"][before.clamp_min(0)] + 1) * known
        a_u, a_v = self.a_u(features["user_id"]), self.a_v(t["item/item_id"][item])
        p_u = F.normalize(self.user_tower(torch.cat([*self._embed("user", features), a_u], 1)), dim=1)
        item_features = {name: t[f"item/{name}"][item] for name in self.item}
        p_v = F.normalize(self.item_tower(torch.cat([*self._embed("item", item_features), a_v], 1)), dim=1)
        positive_row, negative_row = row[:num], row[num:].view(num, -1)
        pairs = torch.cat([positive_row[:, None], negative_row], 1)
        logits = (p_u[:, None] * p_v[pairs.flatten()].view(num, 1 + num_negatives, -1)).sum(2)
        label = torch.zeros_like(logits)
        label[:, 0] = 1
        loss = F.binary_cross_entropy_with_logits(logits / loss_config.task.temperature, label)
        if loss_config.lambda1:
            loss = loss + loss_config.lambda1 * (a_u - p_v[positive_row].detach()).square().sum() / logits.numel()
        if loss_config.lambda2:
            loss = loss + loss_config.lambda2 * (a_v[positive_row] - p_u.detach()).square().sum() / logits.numel()
        if loss_config.lambda3:
            loss = loss + loss_config.lambda3 * self._alignment(p_v, t["category"][item].long(), row)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _embed(self, side: str, features: dict[str, Tensor]) -> list[Tensor]:
        kinds = self.user if side == "user" else self.item
        return [self.embed[f"{side} {n}"](v[:, None] if kinds[n].kind == "numeric" else v) for n, v in features.items()]

    def _alignment(self, p_v: Tensor, category: Tensor, row: Tensor) -> Tensor:
        """Eq. 3 as one would write it: a loop over categories."""
        weight = torch.bincount(row, minlength=len(p_v)).float()
        covariance, size = [], []
        for index in category.unique().tolist():
            chosen = (category == index).nonzero()[:, 0]
            x, w = p_v[chosen], weight[chosen]
            n = float(w.sum())
            if index < 0 or n < 2:
                continue
            centred = x - (w[:, None] * x).sum(0) / n
            covariance.append((w[:, None] * centred).T @ centred / (n - 1))
            size.append(n)
        major = covariance[size.index(max(size))]
        return torch.stack([(major - c).square().sum() for c in covariance]).sum()


def _tower(width: int, hidden: list[int], dim: int, relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for out in hidden:
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, dim), *([nn.ReLU()] if relu else []))


def now() -> float:
    """Seconds, after all that was asked of a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _print(record: dict[str, Any]) -> None:
    table = Table(title=f"DAT on {record['data']}, batch {record['batch_size']}, {record['threads']} threads")
    table.add_column("what")
    table.add_column("ms per step", justify="right")
    table.add_column("positives/s", justify="right")
    for name, value in record["step_ms"].items():
        table.add_row(name, f"{value:.2f}", f"{record['positives_per_second'][name]:,.0f}")
    low, high = min(record["ratios"]), max(record["ratios"])
    table.caption = (
        f"framework / bare loop: {record['ratio']:.2f} (median of {len(record['ratios'])}, {low:.2f} to {high:.2f}); "
        f"evaluation of {record['evaluated_users']:,} users: {record['evaluation_seconds']:.1f} s"
    )
    Console().print(table)
