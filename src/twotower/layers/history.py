"""History encoders: one vector from a user's earlier items. One class, one ``conf/model/history``.

Each is called with ``(index, weight)`` and returns ``(batch, dim)``. The ``(batch, length)`` index
has ``item_id`` features, oldest first, 0 for padding and for items unseen in training; the weight
``(num_values, dim)`` is the table of item embeddings. An empty history gives a zero vector.
Positions count from the end of the history, so padding on the left changes nothing.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.errors import UserError, check_number
from twotower.layers.batched import is_batched
from twotower.layers.embedding_table import lookup, mean_lookup

ROWS_ALIKE = 128  # histories of similar length per pass of the transformer on a CPU


class Sequences(NamedTuple):
    """Histories of a batch whose rows are positions in few sequences, each encoded once.

    Attributes:
        items: ``(num_sequences, length)`` of each, oldest first, 0 pads on the left.
        row: ``(batch,)`` sequence of each position.
        place: ``(batch,)`` place of the item just before it.
    """

    items: Tensor
    row: Tensor
    place: Tensor


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
        state: Tensor = self.gru(self.dropout(lookup(index, weight)))[0]  # (batch, length, dim)
        last = (num - 1).clamp_min(0)[:, None, None].expand(-1, 1, state.shape[2])
        return state.gather(1, last)[:, 0] * (num > 0)[:, None]


class Transformer(nn.Module):
    """SASRec: causal self-attention, read at the last item (Kang and McAuley, ICDM 2018).

    Blocks normalise before attention and before their two-layer network of the same width, as in
    the paper. Positions are learned and counted back from the last item, which is position 0.

    Args:
        dim: width of the item embeddings and of every layer.
        length: number of last items that are read; ``data.history_length`` for all.
        num_layers: blocks.
        num_heads: attention heads; they share ``dim``.
        dropout: of embeddings, attention weights and both parts of a block, in training.

    Raises:
        UserError: for settings out of range, and for data without a history.
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
            raise UserError("model/history=transformer needs a history: set data.history_length=50")
        self.position = nn.Parameter(torch.empty(length, dim))
        nn.init.normal_(self.position, std=dim**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, index: Tensor, weight: Tensor) -> Tensor:
        """``(batch, length)`` and ``(num_values, dim)`` to ``(batch, dim)``."""
        index = known_last(index)[:, -len(self.position) :]
        # A compiled graph cannot branch on data, and a GPU is fast enough with the padding.
        branches = not (torch.compiler.is_compiling() or is_batched(index))
        if not branches or index.device.type != "cpu" or len(index) <= ROWS_ALIKE:
            return self._encode(index, weight, 1)[:, 0]
        # Histories sorted by length: each pass then needs only its longest one's width.
        num, order = (index > 0).sum(1).sort()
        parts = []
        for lengths, rows in zip(num.split(ROWS_ALIKE), order.split(ROWS_ALIKE), strict=True):
            width = max(1, int(lengths[-1]))
            parts.append(self._encode(index[rows, -width:], weight, 1)[:, 0])
        return torch.cat(parts)[order.argsort()]

    def places(self, index: Tensor, weight: Tensor) -> Tensor:
        """The vector of each place, from the items up to it: ``(batch, length, dim)``.

        Positions are counted back from the last place of the row, also for earlier places.

        Args:
            index: ``(batch, length)``, known items at the end.
            weight: ``(num_values, dim)``.
        """
        length = index.shape[1]
        if length > len(self.position):
            raise UserError(
                f"data.positives=sequences reads whole histories: set model.history.length={length}"
            )
        num, order = (index > 0).sum(1).sort()
        parts = []
        for lengths, rows in zip(num.split(ROWS_ALIKE), order.split(ROWS_ALIKE), strict=True):
            width = max(1, int(lengths[-1]))
            part = self._encode(index[rows, -width:], weight, width)
            parts.append(F.pad(part, (0, 0, length - width, 0)))
        return torch.cat(parts)[order.argsort()]

    def _encode(self, index: Tensor, weight: Tensor, num_places: int) -> Tensor:
        """Vectors of the last places of histories with their known items at the end.

        Returns:
            ``(batch, num_places, dim)``.
        """
        known, length = index > 0, index.shape[1]
        item = lookup(index, weight) + self.position[:length].flip(0)
        x = self.dropout(item)  # (batch, length, dim)
        # Padding attends to itself, as a softmax over -inf alone would be NaN.
        itself = torch.eye(length, dtype=torch.bool, device=index.device)
        causal = torch.ones_like(itself).tril()
        visible = causal & (known[:, None] | itself)  # (batch, length, length)
        for block in self.blocks[:-1]:
            x = block(x, visible[:, None])
        last = self.blocks[-1](x, visible[:, None, -num_places:])  # only these are read
        vectors: Tensor = self.norm(last) * known[:, -num_places:, None]
        return vectors


class Block(nn.Module):
    """One layer: attention, then a two-layer network at every place, each with a skip connection.

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

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Outputs for the last places of the history.

        Args:
            x: ``(batch, length, dim)``.
            visible: ``(batch, 1, places, length)``, True where a place attends to another.

        Returns:
            ``(batch, places, dim)``.
        """
        places, normed = visible.shape[2], self.attention_norm(x)
        query = self._heads(self.query(normed[:, -places:]))
        key, value = (self._heads(part) for part in self.key_value(normed).chunk(2, dim=2))
        rate = self.rate if self.training else 0.0
        heads = attention(query, key, value, visible, rate)
        x = x[:, -places:] + self.dropout(self.output(heads.transpose(1, 2).flatten(2)))
        output: Tensor = x + self.dropout(self.network(self.network_norm(x)))
        return output

    def _heads(self, x: Tensor) -> Tensor:
        """``(batch, places, dim)`` to ``(batch, heads, places, dim / heads)``."""
        heads: Tensor = x.unflatten(2, (self.num_heads, -1))
        return heads.transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, rate: float) -> Tensor:
    """Attention of ``(batch, heads, places, width)`` queries, with dropout of its weights.

    Args:
        query: ``(batch, heads, places, width)``.
        key: ``(batch, heads, length, width)``.
        value: ``(batch, heads, length, width)``.
        visible: ``(batch, 1, places, length)``, True where a place attends to another.
        rate: share of the weights dropped.

    Returns:
        ``(batch, heads, places, width)``.
    """
    if not is_batched(query):
        return F.scaled_dot_product_attention(query, key, value, visible, rate)
    # Written out, as the gradient of the fused kernel fails under vmap on a GPU.
    score = query @ key.mT / query.shape[-1] ** 0.5  # (batch, heads, places, length)
    weight = score.masked_fill(~visible, float("-inf")).softmax(3)
    return F.dropout(weight, rate) @ value


def known_last(index: Tensor) -> Tensor:
    """``(batch, length)`` with each row's known items moved to its end, without gaps, in order."""
    return _sorted_by(index > 0, index)


def _sorted_by(late: Tensor, index: Tensor) -> Tensor:
    """``(batch, length)`` with the entries marked ``late`` moved to the end of their rows."""
    length = index.shape[1]
    # Distinct keys keep the order: an exported graph has no stable sort.
    order = (late * length + torch.arange(length, device=index.device)).argsort(dim=1)
    return index.gather(1, order)
