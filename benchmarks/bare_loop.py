"""One training step written by hand, the yardstick of the benchmark: no Lightning, no modules of ours, the same mathematics."""

from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from benchmarks.timing import now
from twotower.errors import UserError


class BareLoop:
    """DAT or the two-tower model, with BCE over own negatives or the in-batch softmax, on the prepared arrays of a data module.

    Args:
        data: the data module, set up.
        config: as ``train.yaml`` composes it.
        distinct: encode each distinct item of a batch once, as the framework does; False: every row, as one would at first.
        device: where it trains.

    Raises:
        UserError: for settings that it does not know.
    """

    def __init__(self, data: Any, config: DictConfig, distinct: bool, device: torch.device) -> None:
        self.augmented = config.model._target_.endswith(".DAT")
        task = config.loss.task
        self.in_batch = task._target_.endswith(".InBatchSoftmax")
        _check(config, self.augmented, self.in_batch)
        self.data, self.distinct = data, distinct
        self.temperature, self.correct_log_q = (
            task.temperature,
            self.in_batch and task.correct_log_q,
        )
        self.num_negatives = 0 if self.in_batch else config.negatives.num
        self.weights = [config.loss.get(f"lambda{index}", 0) for index in (1, 2, 3)]
        model, schema = config.model, data.schema
        self.features = {
            side: [
                f
                for f in getattr(schema, side)
                if f.name in (model[f"{side}_features"] or [f.name])
            ]
            for side in ("user", "item")
        }
        self.parts = nn.ModuleDict()
        for side, features in self.features.items():
            for feature in features:
                self.parts[f"{side} {feature.name}"] = _embedding(
                    feature.kind, feature.num_values, model.embedding_dim
                )
            width = len(features) * model.embedding_dim
            if self.augmented:
                self.parts[f"augmented {side}"] = nn.Embedding(
                    schema.num_values(f"{side}_id"), model.dim
                )
                width += model.dim
            self.parts[f"tower {side}"] = _tower(
                width, model.hidden_dims, model.dim, model.last_activation == "relu"
            )
        self.device = device
        self.parts.to(device)
        options = {key: value for key, value in config.optimizer.items() if not key.startswith("_")}
        self.optimizer = torch.optim.AdamW(self.parts.parameters(), **options)
        train_item = data.tables["interactions/item"][data.tables["position/train"].long()]
        self.log_q = (
            torch.bincount(train_item, minlength=schema.num_items)
            .clamp_min(1)
            .div(len(train_item))
            .log()
            .to(device)
        )

    def run(self, warm_up: int, steps: int) -> float:
        """Seconds per step after the warm-up."""
        position = self.data.tables["position/train"]
        size = self.data.batch_size
        order = position[torch.randperm(len(position))].to(self.device)
        started = 0.0
        for step in range(warm_up + steps):
            if step == warm_up:
                started = now()
            start = step * size % max(1, len(order) - size)
            self.step(order[start : start + size])
        return (now() - started) / steps

    def step(self, position: Tensor) -> Tensor:
        """Gather, forward, backward, update; the loss."""
        table = self.data.tables  # on the device by now: the framework's turn comes first
        user, positive = (
            table[f"interactions/{side}"][position].long() for side in ("user", "item")
        )  # (batch,)
        num = len(positive)
        negative = torch.randint(
            self.data.schema.num_train_items - 1, (num, self.num_negatives), device=self.device
        )
        negative += negative >= positive[:, None]
        item = torch.cat([positive, negative.flatten()])
        row = torch.arange(len(item), device=self.device)
        if self.distinct:
            item, row = torch.unique(item, return_inverse=True)
        p_u, a_u = self._encode("user", self._user_features(position, user))
        p_v, a_v = self._encode(
            "item", {f.name: table[f"item/{f.name}"][item] for f in self.features["item"]}
        )
        first, rest = row[:num], row[num:].view(num, -1)
        loss = (
            self._in_batch_softmax(p_u, p_v, item, first)
            if self.in_batch
            else self._bce(p_u, p_v, first, rest)
        )
        num_pairs = num * (1 + (num if self.in_batch else self.num_negatives))
        if self.weights[0]:
            loss = loss + self.weights[0] * (a_u - p_v[first].detach()).square().sum() / num_pairs
        if self.weights[1]:
            loss = loss + self.weights[1] * (a_v[first] - p_u.detach()).square().sum() / num_pairs
        if self.weights[2]:
            loss = loss + self.weights[2] * self._alignment(
                p_v, table["category"][item].long(), row
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _user_features(self, position: Tensor, user: Tensor) -> dict[str, Tensor]:
        table = self.data.tables
        features = {
            f.name: table[f"user/{f.name}"][user]
            for f in self.features["user"]
            if f.kind != "history"
        }
        if any(f.kind == "history" for f in self.features["user"]):
            before = position[:, None] + torch.arange(
                -self.data.options.history_length, 0, device=self.device
            )
            known = before >= table["offset"][user][:, None]
            features["history"] = (table["interactions/item"][before.clamp_min(0)] + 1) * known
        return features

    def _encode(self, side: str, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Tower output and augmented vectors (DAT's; else nothing)."""
        parts = [self.parts[f"{side} {f.name}"](features[f.name][:, None] if f.kind == "numeric" else features[f.name])
                 for f in self.features[side]]  # fmt: skip
        augmented = (
            self.parts[f"augmented {side}"](features[f"{side}_id"])
            if self.augmented
            else parts[0][:, :0]
        )
        return F.normalize(
            self.parts[f"tower {side}"](torch.cat([*parts, augmented], 1)), dim=1
        ), augmented

    def _bce(self, p_u: Tensor, p_v: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        pairs = torch.cat([positive[:, None], negative], 1)
        logits = (p_u[:, None] * p_v[pairs.flatten()].view(*pairs.shape, -1)).sum(
            2
        ) / self.temperature
        label = torch.zeros_like(logits)
        label[:, 0] = 1
        return F.binary_cross_entropy_with_logits(logits, label)

    def _in_batch_softmax(self, p_u: Tensor, p_v: Tensor, item: Tensor, positive: Tensor) -> Tensor:
        """Each row's positive among the batch's; the same item in other rows is no negative."""
        logits = p_u @ p_v.T / self.temperature
        if self.correct_log_q:
            logits = logits - self.log_q[item]
        if self.distinct:  # a column for each item, which counts as often as it was drawn
            count = torch.bincount(positive, minlength=len(item)).float()
            return F.cross_entropy(
                logits + count.log().expand_as(logits).scatter(1, positive[:, None], 0.0), positive
            )
        same = item == item[:, None]  # (batch, batch)
        return F.cross_entropy(
            logits.masked_fill(
                same ^ torch.eye(len(item), dtype=torch.bool, device=self.device), float("-inf")
            ),
            positive,
        )

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


def _check(config: DictConfig, augmented: bool, in_batch: bool) -> None:
    """Equal work or none: the loop does what these settings say, whatever the others are."""
    bce = config.loss.task._target_.endswith(".BCE")
    if not (augmented or config.model._target_.endswith(".TwoTower")) or not (bce or in_batch):
        raise UserError(
            "the bare loop is DAT or the two-tower model with BCE or the in-batch softmax: "
            "use model=dat or two_tower with loss/task=bce or in_batch_softmax"
        )
    known: dict[str, Any] = {
        "model.normalize": True,
        "model.activation": "relu",
        "model.dropout": 0,
        "model.id_dropout": 0,
        "model.share_item_table": False,
        "model.history._target_": "twotower.layers.history.Mean",
        "negatives._target_": f"twotower.data.sampling.{'InBatch' if in_batch else 'Uniform'}",
        "negatives.exclude_positives": False,
        "data.positives": "interactions",
        "optimizer._target_": "torch.optim.AdamW",
        "trainer.precision": "32-true",
    }
    if augmented:
        known |= {"model.augment_gradient": "both", "loss.over_dim": "sum"}
    if augmented and (config.loss.lambda1 or config.loss.lambda2):
        known["loss.reduction"] = "pairs"
    if config.loss.get("lambda3"):
        paper = {
            "major": "batch",
            "detach_major": False,
            "count": "pairs",
            "min_items": 2,
            "unbiased": True,
        }
        paper |= {"weighting": "none", "over_categories": "sum", "momentum": 0}
        known |= {f"loss.alignment.{key}": value for key, value in paper.items()}
    for key, value in known.items():
        if OmegaConf.select(config, key) != value:
            raise UserError(
                f"{key}={OmegaConf.select(config, key)}: the bare loop knows {key}={value} alone"
            )


def _embedding(kind: str, num_values: int, width: int) -> nn.Module:
    if kind == "numeric":
        return nn.Linear(1, width)
    if kind in ("multi", "history"):
        return nn.EmbeddingBag(num_values, width, mode="mean", padding_idx=0)
    return nn.Embedding(num_values, width)


def _tower(width: int, hidden: list[int], dim: int, relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for out in hidden:
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, dim), *([nn.ReLU()] if relu else []))
