"""Causal transformer with gated skip connections."""

import torch.nn.functional as F
from torch import Tensor, nn

from twotower.errors import check_number
from twotower.layers.history.causal import AttentionBlock, CausalEncoder


class LiGR(CausalEncoder):
    """LiGR's blocks on a history, as in eSASRec (Tikhonovich et al., 2025, arXiv:2508.06450).

    The input of a part opens the gate through which its output is added:
    ``x + sigmoid(W x) * attention(norm(x))``, then ``x + sigmoid(W x) * network(norm(x))`` with
    the network SwiGLU, ``W_3 (silu(W_1 x) * W_2 x)`` (Borisyuk et al., 2025, arXiv:2502.03417).
    As in eSASRec's code (RecTools), gates have biases, the network has none, dropout is before the
    gate, and there is no norm after the last block.

    Args:
        dim: width of the item embeddings and of every layer.
        length: number of last items that are read; ``data.history_length`` for all.
        num_layers: blocks.
        num_heads: attention heads; they share ``dim``.
        dropout: of embeddings, attention weights and both parts of a block, in training.
        network_ratio: width of the network's inner layer over ``dim``.
        positions: ``end``, ``start``, ``relative`` or ``none``, see :class:`CausalEncoder`.
        input_scale: ``none``, ``sqrt_dim`` or ``layer_norm``, see :class:`CausalEncoder`.

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
        network_ratio: int,
        positions: str,
        input_scale: str,
    ) -> None:
        check_number("model.history.num_layers", num_layers, 1, 100)
        check_number("model.history.network_ratio", network_ratio, 1)
        super().__init__(dim, length, dropout, positions, input_scale)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, dropout, self.num_distances, network_ratio * dim)
            for _ in range(num_layers)
        )
        self.norm = nn.Identity()


class Block(AttentionBlock):
    """Attention, then SwiGLU at every place, each added through a gate.

    Args:
        dim: width.
        num_heads: attention heads.
        dropout: of attention weights, of the network's inner layer and of both parts' outputs.
        num_distances: see :class:`AttentionBlock`.
        inner_dim: width of the network's inner layer.
    """

    def __init__(
        self, dim: int, num_heads: int, dropout: float, num_distances: int, inner_dim: int
    ) -> None:
        super().__init__(dim, num_heads, dropout, num_distances)
        self.attention_gate, self.network_gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.inner = nn.Linear(dim, 2 * inner_dim, bias=False)
        self.outer = nn.Linear(inner_dim, dim, bias=False)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """``(batch, length, dim)`` to ``(batch, places, dim)``, for the last places."""
        places, normed = visible.shape[2], self.attention_norm(x)
        last = x[:, -places:]
        read = self.dropout(self.attend(normed[:, -places:], normed, visible))
        last = last + self.attention_gate(last).sigmoid() * read
        swish, value = self.inner(self.network_norm(last)).chunk(2, dim=2)
        network = self.dropout(self.outer(self.dropout(F.silu(swish) * value)))
        output: Tensor = last + self.network_gate(last).sigmoid() * network
        return output
