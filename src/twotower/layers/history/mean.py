"""Mean of a history."""

from torch import Tensor, nn

from twotower.layers.embedding_table import lookup, mean_lookup


class Mean(nn.Module):
    """Mean of the items' embeddings."""

    def forward(self, index: Tensor, weight: Tensor) -> Tensor:
        """``(batch, length)`` and ``(num_values, dim)`` to ``(batch, dim)``."""
        return mean_lookup(index, weight)

    def places(self, index: Tensor, weight: Tensor) -> Tensor:
        """The mean up to each place: ``(batch, length, dim)``."""
        known = (index > 0).to(weight.dtype)  # (batch, length)
        total = (lookup(index, weight) * known[:, :, None]).cumsum(1)
        return total / known.cumsum(1).clamp_min(1)[:, :, None]
