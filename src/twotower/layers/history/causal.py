"""Encoders made of blocks in which each place sees itself and the places before it."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.errors import UserError, check_choice, check_number
from twotower.layers.batched import is_batched
from twotower.layers.embedding_table import lookup
from twotower.layers.history.base import in_passes, late_last

POSITIONS = ("end", "start", "relative", "none")
INPUT_SCALES = ("none", "sqrt_dim", "layer_norm")


class CausalEncoder(nn.Module):
    """Reads a history by blocks in which each place sees itself and the places before it.

    A subclass sets ``blocks``, see :class:`AttentionBlock`, and ``norm``, which vectors pass last.
    If it reads times, it sets ``reads_times``, and its blocks get ``gap`` beside ``visible``:
    ``(batch, places, length)`` seconds between items.

    Args:
        dim: width of the item embeddings and of every block.
        length: number of last items that are read; ``data.history_length`` for all.
        dropout: share of the inputs' entries dropped in training.
        positions: what tells the order of the items. ``end``: a learned vector for each position,
            counted back from the last item; with all places in one pass, from the last place of the
            row, also for earlier places. ``start``: the same, counted from the oldest item that is
            read: the oldest of the last ``length`` where a history is longer. ``relative``: the
            blocks have a learned bias for each distance. ``none``: only what a place may see.
        input_scale: ``sqrt_dim`` multiplies item embeddings by ``sqrt(dim)``, ``layer_norm``
            normalises the sum of item and position (as BERT), ``none`` leaves them.

    Raises:
        UserError: for settings out of range, and for data without a history.
    """

    blocks: nn.ModuleList
    norm: nn.Module
    reads_times = False

    def __init__(
        self, dim: int, length: int, dropout: float, positions: str, input_scale: str
    ) -> None:
        super().__init__()
        check_number("model.embedding_dim", dim, 1)
        check_number("model.history.dropout", dropout, 0, 0.99)
        check_choice("model.history.positions", positions, POSITIONS)
        check_choice("model.history.input_scale", input_scale, INPUT_SCALES)
        if length < 1:
            name = type(self).__name__.lower()
            raise UserError(f"model/history={name} needs a history: set data.history_length=50")
        self.length, self.positions = length, positions
        self.num_distances = length if positions == "relative" else 0  # of the blocks' biases
        self.scale = dim**0.5 if input_scale == "sqrt_dim" else None
        if positions in ("end", "start"):
            self.position = nn.Parameter(torch.empty(length, dim))
            nn.init.normal_(self.position, std=dim**-0.5)
        self.input_norm = nn.LayerNorm(dim) if input_scale == "layer_norm" else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, index: Tensor, weight: Tensor, time: Tensor | None = None) -> Tensor:
        """``(batch, length)`` and ``(num_values, dim)`` to ``(batch, dim)``.

        An encoder that reads times is also given ``(batch, length)`` seconds of the items.
        """
        order = late_last(index > 0)[:, -self.length :]
        index, time = index.gather(1, order), None if time is None else time.gather(1, order)
        return in_passes(index, partial(self._encode, weight), False, time)[:, 0]

    def places(self, index: Tensor, weight: Tensor, time: Tensor | None = None) -> Tensor:
        """The vector of each place, from the items up to it: ``(batch, length, dim)``.

        Args:
            index: ``(batch, length)``, known items at the end.
            weight: ``(num_values, dim)``.
            time: ``(batch, length)`` seconds, for an encoder that reads times.

        Raises:
            UserError: if the index is longer than what the encoder reads.
        """
        length = index.shape[1]
        if length > self.length:
            raise UserError(
                f"data.positives=sequences reads whole histories: set model.history.length={length}"
            )
        return in_passes(index, partial(self._encode, weight), True, time)

    def _encode(
        self, weight: Tensor, index: Tensor, num_places: int, time: Tensor | None
    ) -> Tensor:
        """Vectors of the last places of histories with their known items at the end.

        Returns:
            ``(batch, num_places, dim)``.
        """
        known, length = index > 0, index.shape[1]
        x = self.dropout(self.input_norm(self._inputs(index, weight)))  # (batch, length, dim)
        # Padding attends to itself, as a softmax over -inf alone would be NaN.
        itself = torch.eye(length, dtype=torch.bool, device=index.device)
        causal = torch.ones_like(itself).tril()
        visible = causal & (known[:, None] | itself)  # (batch, length, length)
        gap = None if time is None else time[:, :, None] - time[:, None]
        for block in self.blocks[:-1]:
            x = block(x, visible[:, None], *_last(gap, length))
        # Only the last places are read.
        last = self.blocks[-1](x, visible[:, None, -num_places:], *_last(gap, num_places))
        vectors: Tensor = self.norm(last) * known[:, -num_places:, None]
        return vectors

    def _inputs(self, index: Tensor, weight: Tensor) -> Tensor:
        """Embeddings of items and positions: ``(batch, length, dim)``."""
        item = lookup(index, weight)
        if self.scale is not None:
            item = item * self.scale
        if self.positions == "end":
            return item + self.position[: index.shape[1]].flip(0)
        if self.positions == "start":
            place = (index > 0).cumsum(1).sub(1).clamp_min(0)  # 0 is the oldest item
            return item + F.embedding(place, self.position)
        return item


def _last(gap: Tensor | None, num_places: int) -> tuple[Tensor, ...]:
    """The argument of the blocks for times, of the last places; none without times."""
    return () if gap is None else (gap[:, -num_places:],)


class AttentionBlock(nn.Module):
    """Attention of each place to itself and earlier ones, in several heads, and two norms.

    A subclass adds a network, and ``forward(x, visible)`` that returns ``(batch, places, dim)``:
    outputs for the last places, with arguments as in :meth:`attend`.

    Args:
        dim: width.
        num_heads: attention heads; they share ``dim``.
        dropout: of attention weights, and of ``self.dropout`` for the parts' outputs.
        num_distances: a learned bias for each head and distance below this number is added to the
            scores, 0 at first; 0: there is none.

    Raises:
        UserError: for numbers of heads that do not divide the width.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, num_distances: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.rate = num_heads, dropout
        self.attention_norm, self.network_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.distance: nn.Parameter | None = None
        if num_distances:
            self.distance = nn.Parameter(torch.zeros(num_heads, num_distances))
        self.dropout = nn.Dropout(dropout)

    def attend(self, query: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """What places read from the history.

        Args:
            query: ``(batch, places, dim)``, for the last places.
            x: ``(batch, length, dim)``, for keys and values.
            visible: ``(batch, 1, places, length)``, True where a place attends to another.

        Returns:
            ``(batch, places, dim)``.
        """
        own = heads(self.query(query), self.num_heads)
        key, value = (heads(part, self.num_heads) for part in self.key_value(x).chunk(2, dim=2))
        rate = self.rate if self.training else 0.0
        bias = None if self.distance is None else by_distance(self.distance, *visible.shape[2:])
        read = attention(own, key, value, visible, rate, bias)
        output: Tensor = self.output(read.transpose(1, 2).flatten(2))
        return output


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse numbers of heads that do not divide the width."""
    check_number("model.history.num_heads", num_heads, 1)
    if dim % num_heads:
        raise UserError(
            f"model.history.num_heads={num_heads} must divide model.embedding_dim={dim}"
        )


def heads(x: Tensor, num_heads: int) -> Tensor:
    """``(batch, places, dim)`` to ``(batch, heads, places, dim / heads)``."""
    parts: Tensor = x.unflatten(2, (num_heads, -1))
    return parts.transpose(1, 2)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    rate: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Attention of ``(batch, heads, places, width)`` queries, with dropout of its weights.

    Args:
        query: ``(batch, heads, places, width)``.
        key: ``(batch, heads, length, width)``.
        value: ``(batch, heads, length, width)``.
        visible: ``(batch, 1, places, length)``, True where a place attends to another.
        rate: share of the weights dropped.
        bias: ``(heads, places, length)`` added to the scores.

    Returns:
        ``(batch, heads, places, width)``.
    """
    if bias is None and not is_batched(query):
        return F.scaled_dot_product_attention(query, key, value, visible, rate)
    # Written out: the fused kernel's gradient fails under vmap on a GPU, and with a bias its
    # export to ONNX fails. On a CPU it takes as long with a bias.
    score = query @ key.mT / query.shape[-1] ** 0.5  # (batch, heads, places, length)
    score = score if bias is None else score + bias
    weight = score.masked_fill(~visible, float("-inf")).softmax(3)
    return F.dropout(weight, rate) @ value


def by_distance(values: Tensor, num_places: int, length: int) -> Tensor:
    """The value of each pair's distance, for the last places of a history.

    Args:
        values: ``(rows, num_distances)``, at least ``length`` distances.
        num_places: of the history's last places.
        length: of the history.

    Returns:
        ``(rows, num_places, length)``; pairs of a place and a later one have the value of 0.
    """
    place = torch.arange(length, device=values.device)
    distance = (place[-num_places:, None] - place).clamp_min(0).flatten()
    # ``values[:, distance]`` has a slow gradient under vmap.
    pairs = values.gather(1, distance.expand(len(values), -1))
    return pairs.view(-1, num_places, length)
