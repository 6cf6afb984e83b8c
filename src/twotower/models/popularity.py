"""Popularity: the baseline that every model must beat."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from twotower.types import Batch, Interactions, Schema, Towers


class Popularity(nn.Module):
    """Scores an item by its share of the training interactions; the same ranking for every user.

    Args:
        schema: features and sizes of the data.
    """

    share: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(schema.num_values("item_id")))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Apply changes of device, not of dtype: shares rounded to 16 bits would tie."""
        device = fn(torch.empty(0)).device
        super()._apply(lambda tensor: tensor.to(device), recurse)
        return self

    def fit(self, interactions: Interactions) -> None:
        """Count the training interactions of each item. Cold items keep 0."""
        counts = torch.bincount(interactions.item, minlength=len(self.share)).float()
        self.share.copy_(counts / counts.sum())

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """``(batch, 1)`` of ones."""
        return torch.ones_like(features["user_id"], dtype=self.share.dtype)[:, None]

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """``(batch, 1)`` popularity; 0 for an item unseen in training."""
        return self.share[features["item_id"]][:, None]

    def forward(self, batch: Batch) -> Towers:
        """Tower outputs for the batch's users and distinct items."""
        return Towers(self.encode_user(batch.user), self.encode_item(batch.item))
