"""The plain two-tower model (DSSM with feature embeddings)."""

from torch import Tensor, nn

from twotower.distributed.fetching import fetched_together
from twotower.errors import UserError, check_number
from twotower.layers.embedding_table import check_cold_ids, hide_ids
from twotower.layers.feature_embedding import FeatureEmbedding
from twotower.layers.initial import set_initial_std
from twotower.layers.mlp import Tower, check_summable
from twotower.types import Batch, Schema, Towers


class TwoTower(nn.Module):
    """Towers over concatenated feature embeddings; the score is the outputs' inner product.

    Args:
        schema: features and sizes of the data.
        embedding_dim: width of every feature embedding.
        id_extra_dim: added to the width of ``user_id`` and ``item_id``. With ``id_extra_dim`` equal
            to ``dim`` the model has exactly as many parameters as DAT: one id table as wide as
            DAT's id table and augmented table together.
        hidden_dims: hidden widths of both towers.
        dim: width of the tower outputs.
        activation: after each hidden layer.
        last_activation: after the last layer (``none``, unless scores must be non-negative).
        normalize: L2-normalise the outputs.
        dropout: share of hidden units dropped in training.
        user_features: names of the user tower's inputs, None for all.
        item_features: names of the item tower's inputs, None for all.
        history: encoder of the user's history, see ``layers/history``.
        share_item_table: embed the history with the item tower's ``item_id`` table, as in SASRec.
        cold_ids: vector of an id without a trained row: ``mean``, ``zero`` or ``trained``, which
            needs ``id_dropout``.
        id_dropout: share of user and item ids hidden in training.
        item_dropout: share of the entries of the item tower's input dropped in training.
        tower: ``mlp``, ``identity`` or ``residual``, see :class:`~twotower.layers.mlp.Tower`.
        init_std: of all matrices at the start; None: tables have rows of length 1, layers are as
            torch makes them.
        sharding: ``row`` and ``torchrec`` spread the rows of all tables over the processes.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int,
        id_extra_dim: int,
        hidden_dims: list[int],
        dim: int,
        activation: str,
        last_activation: str,
        normalize: bool,
        dropout: float,
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
    ) -> None:
        super().__init__()
        check_cold_ids(cold_ids, id_dropout)
        check_number("model.item_dropout", item_dropout, 0, 0.99)
        if id_extra_dim and (share_item_table or tower != "mlp"):
            setting = "share_item_table=true" if share_item_table else f"tower={tower}"
            raise UserError(
                f"model.{setting} needs equal widths of all features: set model.id_extra_dim=0"
            )
        self.id_dropout = id_dropout
        self.user_embedding = FeatureEmbedding(
            schema.user, embedding_dim, user_features, cold_ids, history, id_extra_dim, sharding
        )
        self.item_embedding = FeatureEmbedding(
            schema.item, embedding_dim, item_features, cold_ids, None, id_extra_dim, sharding
        )
        if share_item_table:
            self.user_embedding.share_item_table(self.item_embedding)
        self.item_dropout = nn.Dropout(item_dropout)
        check_summable(tower, embedding_dim, dim)
        layers = (hidden_dims, dim, activation, last_activation, normalize, dropout, tower)
        self.user_tower = Tower(self.user_embedding.output_dim, *layers)
        self.item_tower = Tower(self.item_embedding.output_dim, *layers)
        set_initial_std(self, init_std)

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """User features, each ``(batch, ...)``, to ``(batch, dim)``."""
        user: Tensor = self.user_tower(self.user_embedding(features))
        return user

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """Item features, each ``(batch, ...)``, to ``(batch, dim)``."""
        item: Tensor = self.item_tower(self.item_dropout(self.item_embedding(features)))
        return item

    def forward(self, batch: Batch) -> Towers:
        """Tower outputs for the batch's users and distinct items."""
        rate = self.id_dropout if self.training else 0.0
        user, item = hide_ids(batch.user, "user_id", rate), hide_ids(batch.item, "item_id", rate)
        requests = self.user_embedding.requests(user) + self.item_embedding.requests(item)
        with fetched_together(requests):
            return Towers(self.encode_user(user), self.encode_item(item))
