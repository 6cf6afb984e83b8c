"""Factorisation machine for retrieval: its item-dependent part as one inner product."""

import torch
from torch import Tensor, nn

from twotower.distributed.fetching import fetched_together
from twotower.distributed.sharding import draw
from twotower.errors import check_choice, check_number
from twotower.layers.feature_embedding import FeatureEmbedding
from twotower.layers.history import Mean
from twotower.types import Batch, Schema, Towers


class FM(nn.Module):
    """Inner products of all pairs of fields (Rendle, ICDM 2010, Eq. 1), split into two towers.

    With ``x`` the factors of user fields and ``y`` those of item fields, the pairs of a user field
    and an item field add up to ``<Σ x, Σ y>``. One more dimension, in which every user has a 1,
    holds the item's first-order weights and the pairs of its own fields ``Σ_{i<j} <y_i, y_j>``.
    The bias, the user's first-order weights and the pairs of the user's own fields are left out:
    they are the same for all items, so they change no ranking and cancel in ``bpr`` and in every
    softmax. A field of several values (tags, history) has the mean of their factors; pairs within
    a field do not count.

    Args:
        schema: features and sizes of the data.
        dim: factors.
        item_pairs: include the pairs of the item's own fields.
        init_std: of the initial factors and weights.
        user_features: names of the user's fields, None for all.
        item_features: names of the item's fields, None for all.
        cold_ids: vector of an id without a trained row: ``mean`` or ``zero``.
        sharding: ``row`` and ``torchrec`` spread the rows of all tables over the processes.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int,
        item_pairs: bool,
        init_std: float,
        user_features: list[str] | None,
        item_features: list[str] | None,
        cold_ids: str,
        sharding: str = "none",
    ) -> None:
        super().__init__()
        check_number("model.dim", dim, 1)
        check_number("model.init_std", init_std, 0)
        check_choice("model.cold_ids", cold_ids, ("mean", "zero"))
        self.dim = dim
        self.item_pairs = item_pairs
        self.user_factors = FeatureEmbedding(
            schema.user, dim, user_features, cold_ids, Mean(), sharding=sharding
        )
        self.item_factors = FeatureEmbedding(
            schema.item, dim, item_features, cold_ids, sharding=sharding
        )
        self.item_weights = FeatureEmbedding(
            schema.item, 1, item_features, cold_ids, sharding=sharding
        )
        for parameter in self.parameters():
            draw(parameter, std=init_std)

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """``(batch, dim + 1)``: the sum of the fields' factors, and 1."""
        user = self._fields(self.user_factors, features).sum(1)  # (batch, dim)
        return torch.cat([user, torch.ones_like(user[:, :1])], dim=1)

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """``(batch, dim + 1)``: the sum of the fields' factors, and the item's own score."""
        fields = self._fields(self.item_factors, features)  # (batch, num_fields, dim)
        item = fields.sum(1)  # (batch, dim)
        own = self.item_weights(features).sum(1, keepdim=True)  # (batch, 1)
        if self.item_pairs:
            # Σ_{i<j} <y_i, y_j> = (‖Σ y‖² - Σ ‖y‖²) / 2
            own = own + (item.square() - fields.square().sum(1)).sum(1, keepdim=True) / 2
        return torch.cat([item, own], dim=1)

    def forward(self, batch: Batch) -> Towers:
        """Tower outputs for the batch's users and distinct items."""
        requests = self.user_factors.requests(batch.user)
        for own in (self.item_factors, self.item_weights):
            requests += own.requests(batch.item)
        with fetched_together(requests):
            return Towers(self.encode_user(batch.user), self.encode_item(batch.item))

    def _fields(self, embedding: FeatureEmbedding, features: dict[str, Tensor]) -> Tensor:
        factors: Tensor = embedding(features).unflatten(1, (-1, self.dim))
        return factors
