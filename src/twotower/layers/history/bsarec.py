"""Causal self-attention beside a filter of low frequencies."""

import torch
from torch import Tensor, nn

from twotower.errors import check_number
from twotower.layers.history.causal import AttentionBlock, CausalEncoder, by_distance


class BSARec(CausalEncoder):
    """BSARec: a block mixes self-attention with a frequency rescaler (Shin et al., AAAI 2024).

    A block is ``alpha * N(x + filter(x)) + (1 - alpha) * N(x + attention(x))`` with a LayerNorm
    ``N`` of its own for each part, then a network of width ``4 dim`` with GELU, normalised after.
    The filter is ``low + beta^2 * (x - low)`` (Eq. 7) with ``beta`` learned for each dimension.

    The paper's ``low`` keeps the ``c // 2 + 1`` lowest frequencies of the whole padded history of
    length ``L``. It is circular, so an earlier place would see later items, and with all places in
    one pass the item to predict. Here ``low`` reads the past alone:
    ``low_t = sum_d g(d) x_(t-d)``, ``g(d) = (1 + 2 sum_(k=1..c//2) cos(2 pi k d / L)) / L``. At the
    last place both are equal if the padding is zero, as it is here; in the authors' code padding
    has vectors too. Their LayerNorms have an epsilon of 1e-12.

    Args:
        dim: width of the item embeddings and of every layer.
        length: number of last items that are read; ``data.history_length`` for all.
        num_layers: blocks.
        num_heads: attention heads; they share ``dim``.
        dropout: of embeddings, attention weights and all parts of a block, in training.
        alpha: share of the filter in a block.
        c: frequencies that ``low`` keeps are ``0 … c // 2``.
        positions: ``end``, ``start``, ``relative`` or ``none``, see :class:`CausalEncoder`.

    Raises:
        UserError: for settings out of range, and for data without a history.
    """

    def __init__(
        self,
        dim: int,
        length: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        alpha: float,
        c: int,
        positions: str,
    ) -> None:
        check_number("model.history.num_layers", num_layers, 1, 100)
        check_number("model.history.alpha", alpha, 0, 1)
        check_number("model.history.c", c, 1)
        super().__init__(dim, length, dropout, positions, "layer_norm")
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, dropout, self.num_distances, alpha, low_pass(length, c))
            for _ in range(num_layers)
        )
        self.norm = nn.Identity()


class Block(AttentionBlock):
    """Filter and attention, then a two-layer network, each with a skip connection and a norm.

    Args:
        dim: width.
        num_heads: attention heads.
        dropout: of attention weights and of the parts' outputs.
        num_distances: see :class:`AttentionBlock`.
        alpha: share of the filter.
        weight: ``(length,)`` of an item in ``low``, by its distance.
    """

    low_pass: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        dropout: float,
        num_distances: int,
        alpha: float,
        weight: Tensor,
    ) -> None:
        super().__init__(dim, num_heads, dropout, num_distances)
        self.alpha = alpha
        self.register_buffer("low_pass", weight.to(torch.get_default_dtype()), persistent=False)
        self.beta = nn.Parameter(torch.randn(dim))
        self.filter_norm = nn.LayerNorm(dim)
        self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """``(batch, length, dim)`` to ``(batch, places, dim)``, for the last places."""
        last = x[:, -visible.shape[2] :]
        filtered = self.filter_norm(last + self.dropout(self.rescale(x, visible)))
        attended = self.attention_norm(last + self.dropout(self.attend(last, x, visible)))
        mixed = self.alpha * filtered + (1 - self.alpha) * attended
        output: Tensor = self.network_norm(mixed + self.dropout(self.network(mixed)))
        return output

    def rescale(self, x: Tensor, visible: Tensor) -> Tensor:
        """Past low frequencies, and the rest times ``beta^2``: ``(batch, places, dim)``."""
        places, length = visible.shape[2:]
        known = visible[:, 0, -1, :, None]  # what the last place sees: (batch, length, 1)
        weight = by_distance(self.low_pass[None], places, length)[0].tril(length - places)
        low = weight @ (x * known)  # (batch, places, dim)
        return low + self.beta**2 * (x[:, -places:] - low)


def low_pass(length: int, c: int) -> Tensor:
    """Weight of an item by its distance when frequencies ``0 … c // 2`` are kept: ``(length,)``."""
    kept = torch.arange(length // 2 + 1) <= c // 2
    weight: Tensor = torch.fft.irfft(kept.double(), n=length)
    return weight
