"""YouTubeDNN: a tower over the user's history, and one free vector for each item."""

import torch.nn.functional as F
from torch import Tensor, nn

from twotower.distributed.fetching import fetched_together
from twotower.errors import UserError
from twotower.layers.embedding_table import check_cold_ids, hide_ids
from twotower.layers.feature_embedding import FeatureEmbedding
from twotower.layers.mlp import Tower
from twotower.types import Batch, Schema, Towers


class YouTubeDNN(nn.Module):
    """``<MLP([history ‖ user features]), e_v>`` with a sampled softmax.

    Source: Covington et al., RecSys 2016, section 3. As in the paper, the history's items have
    embeddings separate from the output vectors ``e_v``, unless ``share_item_table`` is set. The
    user id is not an input by default, so a new user with a history needs no training.
    L2-normalised vectors and a temperature are our additions; ``normalize=false`` with
    ``loss.task.temperature=1`` is the paper.

    Args:
        schema: features and sizes of the data.
        embedding_dim: width of every input.
        hidden_dims: hidden widths of the tower.
        dim: width of the outputs.
        activation: after each hidden layer.
        last_activation: after the last layer (paper: relu).
        normalize: L2-normalise both outputs.
        dropout: share of hidden units dropped in training.
        user_features: names of the tower's inputs, None for all.
        history: encoder of the history (paper: mean), see ``layers/history``.
        share_item_table: embed the history with the ``e_v``.
        cold_ids: vector of an item without a trained row, see ``EmbeddingTable``.
        id_dropout: share of item ids, and of user ids if they are an input, hidden in training.
        sharding: ``row`` and ``torchrec`` spread the rows of all tables over the processes.

    Raises:
        UserError: if a shared table would need two widths.
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
        user_features: list[str] | None,
        history: nn.Module,
        share_item_table: bool,
        cold_ids: str,
        id_dropout: float,
        sharding: str = "none",
    ) -> None:
        super().__init__()
        check_cold_ids(cold_ids, id_dropout)
        if share_item_table and embedding_dim != dim:
            raise UserError(
                "model.share_item_table=true needs equal widths: "
                f"set model.embedding_dim={dim}, the value of model.dim"
            )
        self.id_dropout = id_dropout
        self.normalize = normalize
        self.user_embedding = FeatureEmbedding(
            schema.user, embedding_dim, user_features, cold_ids, history, sharding=sharding
        )
        tower = (hidden_dims, dim, activation, last_activation, normalize, dropout)
        self.user_tower = Tower(self.user_embedding.output_dim, *tower)
        item_id = tuple(feature for feature in schema.item if feature.name == "item_id")
        self.item_embedding = FeatureEmbedding(item_id, dim, None, cold_ids, sharding=sharding)
        if share_item_table:
            self.user_embedding.share_item_table(self.item_embedding)

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """User features, each ``(batch, ...)``, to ``(batch, dim)``."""
        user: Tensor = self.user_tower(self.user_embedding(features))
        return user

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """Item ids ``(batch,)`` to ``(batch, dim)``."""
        item = self.item_embedding(features)
        return F.normalize(item, dim=1, eps=1e-6) if self.normalize else item

    def forward(self, batch: Batch) -> Towers:
        """Tower outputs for the batch's users and distinct items."""
        rate = self.id_dropout if self.training else 0.0
        user, item = hide_ids(batch.user, "user_id", rate), hide_ids(batch.item, "item_id", rate)
        requests = self.user_embedding.requests(user) + self.item_embedding.requests(item)
        with fetched_together(requests):
            return Towers(self.encode_user(user), self.encode_item(item))
