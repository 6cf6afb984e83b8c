"""Recurrent state after a history."""

from torch import Tensor, nn

from twotower.errors import check_number
from twotower.layers.embedding_table import lookup
from twotower.layers.history.base import known_first


class GRU(nn.Module):
    """Last state of a gated recurrent unit (Hidasi et al., ICLR 2016: GRU4Rec).

    Args:
        dim: width of the item embeddings and of the state.
        dropout: share of the embeddings' entries dropped in training.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        check_number("model.embedding_dim", dim, 1)
        check_number("model.history.dropout", dropout, 0, 0.99)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, index: Tensor, weight: Tensor) -> Tensor:
        """``(batch, length)`` and ``(num_values, dim)`` to ``(batch, dim)``."""
        index = known_first(index)  # the state starts at the oldest
        num = (index > 0).sum(1)  # (batch,)
        state: Tensor = self.gru(self.dropout(lookup(index, weight)))[0]  # (batch, length, dim)
        last = (num - 1).clamp_min(0)[:, None, None].expand(-1, 1, state.shape[2])
        return state.gather(1, last)[:, 0] * (num > 0)[:, None]
