"""A hand-written training loop with the same mathematics, to compare the framework against.

It uses neither Lightning nor layers of this package.
"""

from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from benchmarks.timing import now
from twotower.errors import UserError


class BareLoop:
    """DAT or the two-tower model, trained with BCE or the in-batch softmax.

    BCE has sampled negatives for each positive. The data are the prepared arrays of a data module.

    Args:
        data: the data module, after ``setup``.
        config: as composed from ``train.yaml``.
        distinct: True encodes each distinct item of a batch once, as the framework does;
            False encodes every row, as a first implementation would.
        device: the device to train on.

    Raises:
        UserError: for settings that it does not implement.
    """

    def __init__(self, data: Any, config: DictConfig, distinct: bool, device: torch.device) -> None:
        self.augmented = config.model._target_.endswith(".DAT")
        task = config.loss.task
        self.in_batch = task._target_.endswith(".InBatchSoftmax")
        _check(config, self.augmented, self.in_batch)
        self.data, self.distinct = data, distinct
        self.temperature = task.temperature
        self.correct_log_q = self.in_batch and task.correct_log_q
        self.num_negatives = 0 if self.in_batch else config.negatives.num
        self.weights = [config.loss.get(f"lambda{index}", 0) for index in (1, 2, 3)]
        model, schema = config.model, data.schema
        self.features = {}
        for side in ("user", "item"):
            chosen = model[f"{side}_features"]
            features = getattr(schema, side)
            self.features[side] = [f for f in features if not chosen or f.name in chosen]
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
        count = torch.bincount(train_item, minlength=schema.num_items)
        self.log_q = (count.clamp_min(1) / len(train_item)).log().to(device)  # (num_items,)

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
        """Gather the batch, run forward and backward, update the weights, return the loss."""
        # the tables are on the device already: the framework runs first and moves them
        table = self.data.tables
        user = table["interactions/user"][position].long()  # (batch,)
        positive = table["interactions/item"][position].long()  # (batch,)
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
        """Tower outputs and DAT's augmented vectors (for other models without columns)."""
        parts = []
        for feature in self.features[side]:
            value = features[feature.name]
            if feature.kind == "numeric":
                value = value[:, None]  # (batch, 1)
            parts.append(self.parts[f"{side} {feature.name}"](value))
        if self.augmented:
            augmented = self.parts[f"augmented {side}"](features[f"{side}_id"])  # (batch, dim)
        else:
            augmented = parts[0][:, :0]  # (batch, 0)
        output = self.parts[f"tower {side}"](torch.cat([*parts, augmented], 1))
        return F.normalize(output, dim=1), augmented

    def _bce(self, p_u: Tensor, p_v: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        pairs = torch.cat([positive[:, None], negative], 1)  # (batch, 1 + num_negatives)
        item = p_v[pairs.flatten()].view(*pairs.shape, -1)
        logits = (p_u[:, None] * item).sum(2) / self.temperature
        label = torch.zeros_like(logits)
        label[:, 0] = 1
        return F.binary_cross_entropy_with_logits(logits, label)

    def _in_batch_softmax(self, p_u: Tensor, p_v: Tensor, item: Tensor, positive: Tensor) -> Tensor:
        """Cross-entropy of each positive among those of the batch, without accidental hits."""
        logits = p_u @ p_v.T / self.temperature
        if self.correct_log_q:
            logits = logits - self.log_q[item]
        if self.distinct:  # one column for each item, weighted by how often the item was drawn
            count = torch.bincount(positive, minlength=len(item)).float()
            weight = count.log().expand_as(logits).scatter(1, positive[:, None], 0.0)
            return F.cross_entropy(logits + weight, positive)
        same = item == item[:, None]  # (batch, batch)
        itself = torch.eye(len(item), dtype=torch.bool, device=self.device)
        return F.cross_entropy(logits.masked_fill(same ^ itself, float("-inf")), positive)

    def _alignment(self, p_v: Tensor, category: Tensor, row: Tensor) -> Tensor:
        """Alignment loss (DAT, eq. 3) as a loop over categories."""
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
    """Refuse settings that the loop does not implement, so that both do the same work."""
    bce = config.loss.task._target_.endswith(".BCE")
    if not (augmented or config.model._target_.endswith(".TwoTower")) or not (bce or in_batch):
        raise UserError(
            "the bare loop has DAT and the two-tower model with BCE or the in-batch softmax: "
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
                f"{key}={OmegaConf.select(config, key)}: the bare loop needs {key}={value}"
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
