"""Recurrent state after a history."""

from torch import Tensor, nn

from twotower.errors import check_number
from twotower.layers.embedding_table import lookup
from twotower.layers.history.base import in_passes, known_first


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
        num = (index > 0).sum(1)  # (batch,)
        return self._states(index, weight, (num - 1)[:, None])[:, 0] * (num > 0)[:, None]

    def places(self, index: Tensor, weight: Tensor) -> Tensor:
        """The state after each place: ``(batch, length, dim)``."""
        return in_passes(index, lambda part, *_: self._places(part, weight), True)

    def _places(self, index: Tensor, weight: Tensor) -> Tensor:
        known = index > 0
        return self._states(index, weight, known.cumsum(1) - 1) * known[:, :, None]

    def _states(self, index: Tensor, weight: Tensor, number: Tensor) -> Tensor:
        """States after the known items of these numbers, from 0: ``(batch, num, dim)``."""
        index = known_first(index)  # the state starts at the oldest
        state: Tensor = self.gru(self.dropout(lookup(index, weight)))[0]  # (batch, length, dim)
        return state.gather(1, number.clamp_min(0)[:, :, None].expand(-1, -1, state.shape[2]))
