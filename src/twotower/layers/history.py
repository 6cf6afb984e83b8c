"""History encoders: what a user tower makes of the items that its user has taken before. One class, one ``conf/model/history``.

Each is called with ``(index, weight)``: ``(batch, length)`` ``item_id`` indices, oldest first, 0 where there is no item or
training never saw it, and the ``(num_values, dim)`` table of item embeddings, and returns ``(batch, dim)``. An empty history
is a zero vector. What stands where in the history counts from its end: padding on the left changes nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.errors import UserError, check_number
from twotower.layers.embedding_table import lookup, mean_lookup

ROWS_ALIKE = 128  # a CPU computes the transformer for so many histories of like length at a time, without most of their padding


class Mean(nn.Module):
    """Mean of the items' embeddings."""

    def forward(self, index: Tensor, weight: Tensor) -> Tensor:
        """``(batch, length)`` and ``(num_values, dim)`` to ``(batch, dim)``."""
        return mean_lookup(index, weight)


class Attention(nn.Module):
    """Mean weighted by ``softmax(<q, tanh(W e + b)>)`` with one learned query ``q`` (Yang et al., NAACL 2016, Eq. 5-7).

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
        score = score.masked_fill(
            ~known & known.any(1, keepdim=True), float("-inf")
        )  # an empty row stays finite
        return ((score.softmax(1) * known)[:, None] @ item).squeeze(1)


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
        index = _sorted_by(index == 0, index)  # known items first: the state starts at the oldest
        num = (index > 0).sum(1)  # (batch,)
        state, _ = self.gru(self.dropout(lookup(index, weight)))  # (batch, length, dim)
        place = (num - 1).clamp_min(0)[:, None, None].expand(-1, 1, state.shape[2])
        return state.gather(1, place)[:, 0] * (num > 0)[:, None]


class Transformer(nn.Module):
    """Causal self-attention over the history, read at its last item (Kang and McAuley, ICDM 2018: SASRec).

    Blocks normalise before attention and before their two-layer network of the same width, as that paper has it. Positions are
    learned, and counted back from the last item, so that the most recent one is always position 0.

    Args:
        dim: width of the item embeddings and of every layer.
        length: of a history, its last items that count; ``data.history_length`` for all.
        num_layers: blocks.
        num_heads: attention heads; they share ``dim``.
        dropout: of embeddings, attention weights and both parts of a block, in training.
    """

    def __init__(
        self, dim: int, length: int, num_layers: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        check_number("model.history.num_layers", num_layers, 1, 100)
        check_number("model.history.num_heads", num_heads, 1)
        check_number("model.history.dropout", dropout, 0, 0.99)
        if dim % num_heads:
            raise UserError(
                f"model.history.num_heads={num_heads} must divide model.embedding_dim={dim}"
            )
        if length < 1:
            raise UserError(
                "model/history=transformer reads a history: set data.history_length, 50 say"
            )
        self.position = nn.Parameter(torch.empty(length, dim))
        nn.init.normal_(self.position, std=dim**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, index: Tensor, weight: Tensor) -> Tensor:
        """``(batch, length)`` and ``(num_values, dim)`` to ``(batch, dim)``."""
        index = known_last(index)[:, -len(self.position) :]
        if (
            torch.compiler.is_compiling() or index.device.type != "cpu" or len(index) <= ROWS_ALIKE
        ):  # a graph has one way
            return self._encode(index, weight)
        num, order = (index > 0).sum(1).sort()
        widths = [max(1, int(part[-1])) for part in num.split(ROWS_ALIKE)]
        parts = [
            self._encode(index[rows, -width:], weight)
            for rows, width in zip(order.split(ROWS_ALIKE), widths, strict=True)
        ]
        return torch.cat(parts)[order.argsort()]

    def _encode(self, index: Tensor, weight: Tensor) -> Tensor:
        """Histories with their known items at the end."""
        known, length = index > 0, index.shape[1]
        x = self.dropout(
            lookup(index, weight) + self.position[:length].flip(0)
        )  # (batch, length, dim)
        itself = torch.eye(
            length, dtype=torch.bool, device=index.device
        )  # keeps the padding's rows finite
        causal = torch.ones_like(itself).tril()
        may_see = causal & (known[:, None] | itself)  # (batch, length, length)
        for block in self.blocks[:-1]:
            x = block(x, may_see[:, None])
        last = self.blocks[-1](x, may_see[:, None, -1:])  # nothing else is read of the last block
        return self.norm(last[:, 0]) * known[:, -1:]


class Block(nn.Module):
    """One layer: attention, then a network of two layers at every place, each beside a skip connection.

    Args:
        dim: width.
        num_heads: attention heads.
        dropout: of attention weights and of both parts' outputs.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rate = dropout
        self.attention_norm, self.network_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.network = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, may_see: Tensor) -> Tensor:
        """``(batch, length, dim)`` to ``(batch, places, dim)``, of its last places.

        ``may_see``, ``(batch, 1, places, length)``, tells what each of them may look at.
        """
        places, normed = may_see.shape[2], self.attention_norm(x)
        parts = (self.query(normed[:, -places:]), *self.key_value(normed).chunk(2, dim=2))
        query, key, value = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts
        )
        rate = self.rate if self.training else 0.0
        heads = F.scaled_dot_product_attention(
            query, key, value, may_see, rate
        )  # (batch, heads, places, dim / heads)
        x = x[:, -places:] + self.dropout(self.output(heads.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.network(self.network_norm(x)))


def known_last(index: Tensor) -> Tensor:
    """``(batch, length)`` with every row's known items at its end, in their order: unknown ones in between leave no gap."""
    return _sorted_by(index > 0, index)


def _sorted_by(late: Tensor, index: Tensor) -> Tensor:
    """``(batch, length)`` with what is not ``late`` first. Keys all differ, as an exported graph has no stable sort."""
    length = index.shape[1]
    order = (late * length + torch.arange(length, device=index.device)).argsort(dim=1)
    return index.gather(1, order)
