"""MVKE: virtual-kernel experts and gates as one inner product (Xu et al., Tencent, 2021)."""

import torch
from torch import Tensor, nn

from twotower.distributed.fetching import fetched_together
from twotower.errors import UserError, check_number
from twotower.layers.embedding_table import check_cold_ids, hide_ids
from twotower.layers.feature_embedding import FeatureEmbedding
from twotower.layers.mlp import Tower
from twotower.types import Batch, Schema, Towers


class MVKE(nn.Module):
    """``s(u, v) = <Σ_k g_k(v) u_k, v>``: experts ``u_k`` of the user, mixed by a gate of the item.

    There are ``K`` virtual kernels ``W``. An expert weighs the user's fields ``X (F, d)`` by its
    kernel, ``softmax_F(Key(X) Query(W_k) / √d) Val(X) + X``, then come LayerNorm and the expert's
    own tower. The gate is ``g = softmax_k(<v, W_k>)``. It depends on the item alone, so the score
    equals ``<[u_1 ‖ … ‖ u_K], [g_1 v ‖ … ‖ g_K v]>``: retrieval is an inner product in ``K dim``
    dimensions. With ``normalize``, each ``u_k`` and ``v`` are normalised, never the mixture, as the
    score would no longer factor.

    Objectives share kernels: each has its own gate, a softmax over the objective's kernels. Train
    several objectives with ``loss=multi_objective``.

    Args:
        schema: features and sizes of the data.
        embedding_dim: ``d``, width of every field.
        hidden_dims: hidden widths of each expert's and of the item's tower.
        dim: width of kernels and tower outputs.
        num_kernels: ``K``.
        objectives: the kernels of each objective (paper: click 0-2, conversion 1-4).
        retrieve: index of the objective that items are ranked by.
        activation: after each hidden layer.
        last_activation: after the last layer.
        normalize: L2-normalise each ``u_k`` and ``v``.
        dropout: share of hidden units dropped in training.
        user_features: names of the user's fields, None for all.
        item_features: names of the item tower's inputs, None for all.
        history: encoder of the user's history, see ``layers/history``.
        cold_ids: vector of an id without a trained row.
        id_dropout: share of user and item ids hidden in training.
        sharding: ``row`` and ``torchrec`` spread the rows of all tables over the processes.

    Raises:
        UserError: for objectives with unknown kernels, and for unused kernels.
    """

    outside: Tensor  # (num_objectives, num_kernels), True for kernels of other objectives

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int,
        hidden_dims: list[int],
        dim: int,
        num_kernels: int,
        objectives: list[list[int]],
        retrieve: int,
        activation: str,
        last_activation: str,
        normalize: bool,
        dropout: float,
        user_features: list[str] | None,
        item_features: list[str] | None,
        history: nn.Module,
        cold_ids: str,
        id_dropout: float,
        sharding: str = "none",
    ) -> None:
        super().__init__()
        check_number("model.dim", dim, 1)
        check_number("model.num_kernels", num_kernels, 1, 1000)
        check_cold_ids(cold_ids, id_dropout)
        _check_objectives(objectives, num_kernels, retrieve)
        self.retrieve = retrieve
        self.id_dropout = id_dropout
        self.user_embedding = FeatureEmbedding(
            schema.user, embedding_dim, user_features, cold_ids, history, sharding=sharding
        )
        self.item_embedding = FeatureEmbedding(
            schema.item, embedding_dim, item_features, cold_ids, sharding=sharding
        )
        self.kernels = nn.Parameter(torch.randn(num_kernels, dim) * dim**-0.5)
        self.query = nn.Linear(dim, embedding_dim)
        # No bias: it would add the same to all fields, and the softmax ignores that.
        self.key = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.value = nn.Linear(embedding_dim, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim)
        tower = (hidden_dims, dim, activation, last_activation, normalize, dropout)
        self.experts = nn.ModuleList(
            Tower(self.user_embedding.output_dim, *tower) for _ in range(num_kernels)
        )
        self.item_tower = Tower(self.item_embedding.output_dim, *tower)
        outside = torch.ones(len(objectives), num_kernels, dtype=torch.bool)
        for row, kernels in enumerate(objectives):
            outside[row, kernels] = False
        self.register_buffer("outside", outside, persistent=False)

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """``[u_1 ‖ … ‖ u_K]``: ``(batch, num_kernels * dim)``."""
        return self.experts_of(features).flatten(1)

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """``[g_1 v ‖ … ‖ g_K v]`` of the objective ``retrieve``: ``(batch, num_kernels * dim)``."""
        item = self.item_tower(self.item_embedding(features))
        return self._gated(item, self.retrieve)

    def forward(self, batch: Batch) -> Towers:
        """The batch's users and distinct items, with item vectors for each objective."""
        rate = self.id_dropout if self.training else 0.0
        user, item = hide_ids(batch.user, "user_id", rate), hide_ids(batch.item, "item_id", rate)
        requests = self.user_embedding.requests(user) + self.item_embedding.requests(item)
        with fetched_together(requests):
            v = self.item_tower(self.item_embedding(item))  # (num_distinct, dim)
            experts = self.encode_user(user)
        by_objective = tuple(self._gated(v, objective) for objective in range(len(self.outside)))
        return Towers(experts, by_objective[self.retrieve], item_by_objective=by_objective)

    def experts_of(self, features: dict[str, Tensor]) -> Tensor:
        """``u_k`` of each user: ``(batch, num_kernels, dim)``."""
        width = self.key.in_features
        x = self.user_embedding(features).unflatten(1, (-1, width))  # (batch, fields, width)
        score = self.key(x) @ self.query(self.kernels).T / width**0.5  # (batch, fields, kernels)
        # (batch, fields, kernels, width)
        weighted = score.softmax(1)[..., None] * self.value(x)[:, :, None]
        view = self.norm(weighted + x[:, :, None])
        outputs = [expert(view[:, :, k].flatten(1)) for k, expert in enumerate(self.experts)]
        return torch.stack(outputs, dim=1)

    def gate(self, item: Tensor, objective: int) -> Tensor:
        """``g`` of item tower outputs ``(batch, dim)``: ``(batch, num_kernels)``.

        It is 0 for kernels of other objectives.
        """
        logits = item @ self.kernels.T  # (batch, num_kernels)
        return logits.masked_fill(self.outside[objective], float("-inf")).softmax(1)

    def diagnose(self, user: dict[str, Tensor], item: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean entropy of the gate in nats and ``(num_kernels,)`` mean weights, for diagnostics."""
        v = self.item_tower(self.item_embedding(item))  # (batch, dim)
        gate = self.gate(v, self.retrieve)  # (batch, num_kernels)
        return {"gate_entropy": torch.special.entr(gate).sum(1).mean(), "load": gate.mean(0)}

    def _gated(self, item: Tensor, objective: int) -> Tensor:
        return (self.gate(item, objective)[:, :, None] * item[:, None]).flatten(1)


def _check_objectives(objectives: list[list[int]], num_kernels: int, retrieve: int) -> None:
    used = {kernel for kernels in objectives for kernel in kernels}
    if not objectives or not all(objectives) or used != set(range(num_kernels)):
        raise UserError(
            f"model.objectives must use all kernels 0 to {num_kernels - 1}, and at least one in "
            f"each objective, got {objectives}"
        )
    check_number("model.retrieve", retrieve, 0, len(objectives) - 1)
