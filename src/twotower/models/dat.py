"""DAT: the Dual Augmented Two-tower model (Yu et al., Meituan, DLP-KDD 2021)."""

import torch
from torch import Tensor, nn

from twotower.distributed.fetching import Request, fetched_together
from twotower.errors import UserError, check_choice, check_number
from twotower.layers.embedding_table import EmbeddingTable, check_cold_ids, hide_ids
from twotower.layers.feature_embedding import FeatureEmbedding
from twotower.layers.initial import set_initial_std
from twotower.layers.mlp import Tower, check_summable
from twotower.layers.running_mean import RunningMeanTable
from twotower.types import Batch, Schema, Towers


class DAT(nn.Module):
    """Two towers with augmented vectors ``a_u`` and ``a_v`` as additional inputs.

    ``z_u = [e_1 ‖ … ‖ e_n ‖ a_u]``, ``z_v = [e_1 ‖ … ‖ e_m ‖ a_v]``, then the towers of Eq. 1. The
    augmented vectors are trained to mimic the other tower's output. They have their own tables,
    keyed by user and item id and separate from the id embeddings, which are inputs too. Their
    width is ``dim``, as they mimic tower outputs. The mimic losses (Eq. 2) are in
    ``losses/functional.py``.

    Args:
        schema: features and sizes of the data.
        embedding_dim: width of every feature embedding (paper: 32).
        hidden_dims: hidden widths of both towers (paper: 256, 128).
        dim: width of tower outputs and augmented vectors (paper: 32).
        activation: after each hidden layer (paper: relu).
        last_activation: after the last layer (paper: relu; it keeps every score in [0, 1]).
        normalize: L2-normalise the outputs (paper: yes).
        dropout: share of hidden units dropped in training.
        augment_gradient: losses that train the augmented vectors: the task loss through the tower
            input and the mimic loss (``both``, the paper), ``mimic`` alone (they enter the tower
            detached), ``task`` alone, or ``none``: then they are no parameters but running means of
            what they would mimic, the other tower's outputs for the id's positives.
        user_features: names of the user tower's inputs, None for all.
        item_features: names of the item tower's inputs, None for all.
        history: encoder of the user's history, see ``layers/history``.
        share_item_table: embed the history with the item tower's ``item_id`` table, as in SASRec.
        cold_ids: vector of an id without a trained row, in id and augmented tables.
        id_dropout: share of user and item ids hidden in training.
        item_dropout: share of the entries of the item tower's input dropped in training.
        tower: ``mlp``, ``identity`` or ``residual``, see :class:`~twotower.layers.mlp.Tower`.
        init_std: of all matrices at the start; None: tables have rows of length 1, layers are as
            torch makes them.
        sharding: ``row`` and ``torchrec`` spread the rows of all tables over the processes.
        augment_momentum: share of the past in the running means of ``augment_gradient=none``.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int,
        hidden_dims: list[int],
        dim: int,
        activation: str,
        last_activation: str,
        normalize: bool,
        dropout: float,
        augment_gradient: str,
        user_features: list[str] | None,
        item_features: list[str] | None,
        history: nn.Module,
        share_item_table: bool,
        cold_ids: str,
        id_dropout: float,
        item_dropout: float = 0.0,
        tower: str = "mlp",
        init_std: float | None = None,
        sharding: str = "none",
        augment_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        check_choice("model.augment_gradient", augment_gradient, ("both", "mimic", "task", "none"))
        check_number("model.dim", dim, 1)
        check_cold_ids(cold_ids, id_dropout)
        check_number("model.item_dropout", item_dropout, 0, 0.99)
        self.augment_gradient = augment_gradient
        self.id_dropout = id_dropout
        self.user_embedding = FeatureEmbedding(
            schema.user, embedding_dim, user_features, cold_ids, history, sharding=sharding
        )
        self.item_embedding = FeatureEmbedding(
            schema.item, embedding_dim, item_features, cold_ids, sharding=sharding
        )
        if share_item_table:
            self.user_embedding.share_item_table(self.item_embedding)
        if augment_gradient == "none" and sharding != "none":
            raise UserError(
                f"model.augment_gradient=none keeps whole tables, not model.sharding={sharding}: "
                "set model.sharding=none"
            )

        def table(name: str) -> EmbeddingTable:
            shape = (schema.num_values(name), dim)
            if augment_gradient == "none":
                return RunningMeanTable(*shape, cold_ids, augment_momentum)
            return EmbeddingTable(*shape, cold_ids, sharding)

        self.user_augmented, self.item_augmented = table("user_id"), table("item_id")
        self.item_dropout = nn.Dropout(item_dropout)
        check_summable(tower, embedding_dim, dim)
        layers = (hidden_dims, dim, activation, last_activation, normalize, dropout, tower)
        self.user_tower = Tower(self.user_embedding.output_dim + dim, *layers, dim)
        self.item_tower = Tower(self.item_embedding.output_dim + dim, *layers, dim)
        set_initial_std(self, init_std)

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """User features, each ``(batch, ...)``, to ``p_u`` ``(batch, dim)``."""
        return self._encode_user(features, self.user_augmented(features["user_id"]))

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """Item features, each ``(batch, ...)``, to ``p_v`` ``(batch, dim)``."""
        return self._encode_item(features, self.item_augmented(features["item_id"]))

    def forward(self, batch: Batch) -> Towers:
        """``p_u``, ``p_v``, ``a_u`` and ``a_v`` of the batch's users and distinct items."""
        rate = self.id_dropout if self.training else 0.0
        user_features = hide_ids(batch.user, "user_id", rate)
        item_features = hide_ids(batch.item, "item_id", rate)
        with fetched_together(self._requests(user_features, item_features)):
            a_u = self.user_augmented(user_features["user_id"])  # (batch, dim)
            a_v = self.item_augmented(item_features["item_id"])  # (num_distinct, dim)
            user = self._encode_user(user_features, a_u)  # (batch, dim)
            item = self._encode_item(item_features, a_v)  # (num_distinct, dim)
        if self.augment_gradient == "none":
            self._average(user_features["user_id"], item_features["item_id"], batch, user, item)
            return Towers(user, item)  # a mimic loss has nothing to train
        if self.augment_gradient == "task":
            a_u, a_v = a_u.detach(), a_v.detach()
        return Towers(user, item, a_u, a_v)

    def _requests(self, user: dict[str, Tensor], item: dict[str, Tensor]) -> list[Request]:
        return [
            *self.user_augmented.requests(user["user_id"]),
            *self.item_augmented.requests(item["item_id"]),
            *self.user_embedding.requests(user),
            *self.item_embedding.requests(item),
        ]

    def _encode_user(self, features: dict[str, Tensor], augmented: Tensor) -> Tensor:
        z_u = torch.cat([self.user_embedding(features), self._input(augmented)], dim=1)
        p_u: Tensor = self.user_tower(z_u)
        return p_u

    def _encode_item(self, features: dict[str, Tensor], augmented: Tensor) -> Tensor:
        z_v = torch.cat([self.item_embedding(features), self._input(augmented)], dim=1)
        p_v: Tensor = self.item_tower(self.item_dropout(z_v))
        return p_v

    def _average(
        self, user_id: Tensor, item_id: Tensor, batch: Batch, user: Tensor, item: Tensor
    ) -> None:
        """In training, move the running means towards the outputs of the batch's positives."""
        for table, index, vector in (
            (self.user_augmented, user_id, item[batch.positive]),
            (self.item_augmented, item_id[batch.positive], user),
        ):
            assert isinstance(table, RunningMeanTable)
            if self.training:
                table.update(index, vector)

    def _input(self, augmented: Tensor) -> Tensor:
        return augmented.detach() if self.augment_gradient == "mimic" else augmented
