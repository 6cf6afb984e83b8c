"""Weighted mean of a history, weights by attention."""

import torch
from torch import Tensor, nn

from twotower.errors import check_number
from twotower.layers.embedding_table import lookup
from twotower.layers.history.base import in_passes


class Attention(nn.Module):
    """Mean weighted by ``softmax(<q, tanh(W e + b)>)`` with one learned query ``q``.

    Source: Yang et al., NAACL 2016, Eq. 5-7.

    Args:
        dim: width of the item embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_number("model.embedding_dim", dim, 1)
        self.key = nn.Linear(dim, dim)
        self.query = nn.Parameter(torch.empty(dim))
        nn.init.normal_(self.query, std=dim**-0.5)

    def forward(self, index: Tensor, weight: Tensor) -> Tensor:
        """``(batch, length)`` and ``(num_values, dim)`` to ``(batch, dim)``."""
        item, known = lookup(index, weight), index > 0  # (batch, length, dim), (batch, length)
        score = torch.tanh(self.key(item)) @ self.query  # (batch, length)
        # Empty histories stay unmasked: a softmax over -inf alone would be NaN.
        masked = ~known & known.any(1, keepdim=True)
        score = score.masked_fill(masked, float("-inf"))
        return ((score.softmax(1) * known)[:, None] @ item).squeeze(1)

    def places(self, index: Tensor, weight: Tensor) -> Tensor:
        """The weighted mean up to each place: ``(batch, length, dim)``."""
        return in_passes(index, lambda part, *_: self._places(part, weight), True)

    def _places(self, index: Tensor, weight: Tensor) -> Tensor:
        item, known = lookup(index, weight), index > 0
        score = torch.tanh(self.key(item)) @ self.query  # (batch, length)
        # A softmax for each place: sums of exp(score) so far could overflow.
        itself = torch.eye(index.shape[1], dtype=torch.bool, device=index.device)
        visible = torch.ones_like(itself).tril() & (known[:, None] | itself)
        scores = score[:, None].masked_fill(~visible, float("-inf"))  # (batch, length, length)
        return (scores.softmax(2) @ item) * known[:, :, None]
