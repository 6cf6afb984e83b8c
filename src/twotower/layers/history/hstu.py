"""Pointwise attention with gates over a history."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.errors import check_number
from twotower.layers.history.causal import CausalEncoder, by_distance, check_heads, heads

BUCKETS = 128


class HSTU(CausalEncoder):
    """Hierarchical sequential transduction units (Zhai et al., ICML 2024, Eq. 1-4).

    A block adds ``W_o (u * N(a))`` to its input, where ``u``, ``v``, ``q``, ``k`` are
    ``silu(W N(x))``, ``a = silu(q k^T + b) v / length`` sums over earlier places and itself, and
    ``N`` is a LayerNorm without parameters. There is no softmax: the number of similar items
    counts. The bias ``b`` is learned by distance, one for all heads, as in the authors' code; also
    as there, positions are learned vectors beside it, and item embeddings are scaled.

    With ``times`` a second bias is learned for buckets of the logarithm of the seconds between two
    items. The authors' code measures from the time of the item to predict, which a user's vector
    does not know here; it is measured from the last item that a place sees.

    Args:
        dim: width of the item embeddings and of every layer.
        length: number of last items that are read; ``data.history_length`` for all.
        num_layers: blocks.
        num_heads: attention heads; they share ``dim``.
        dropout: of the gated output of each block, in training.
        positions: ``end`` or ``start``: learned vectors beside the bias; ``relative``: the bias
            alone; ``none``: neither; see :class:`CausalEncoder`.
        input_scale: ``none``, ``sqrt_dim`` or ``layer_norm``, see :class:`CausalEncoder`.
        embedding_dropout: of embeddings; None is the same as ``dropout``.
        times: read the times of the items, which needs ``data.history_times=true``.

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
        positions: str,
        input_scale: str,
        embedding_dropout: float | None,
        times: bool,
    ) -> None:
        check_number("model.history.num_layers", num_layers, 1, 100)
        check_number("model.history.dropout", dropout, 0, 0.99)
        if embedding_dropout is None:
            embedding_dropout = dropout
        check_number("model.history.embedding_dropout", embedding_dropout, 0, 0.99)
        super().__init__(dim, length, embedding_dropout, positions, input_scale)
        self.reads_times = times
        self.blocks = nn.ModuleList(
            Block(dim, length, num_heads, dropout, positions != "none", times)
            for _ in range(num_layers)
        )
        self.norm = nn.Identity()


class Block(nn.Module):
    """Attention without a softmax, gated at every place, with a skip connection.

    Args:
        dim: width.
        length: the sums over a history are divided by it.
        num_heads: attention heads.
        dropout: of the gated output.
        by_place: whether scores have a learned bias by distance.
        by_time: whether they have one by the time between items.
    """

    def __init__(
        self, dim: int, length: int, num_heads: int, dropout: float, by_place: bool, by_time: bool
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.length, self.num_heads = length, num_heads
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.inputs, self.output = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(dim, dim)
        nn.init.normal_(self.inputs.weight, std=0.02)
        nn.init.xavier_uniform_(self.output.weight)
        self.distance = nn.Parameter(0.02 * torch.randn(1, length)) if by_place else None
        self.time = nn.Parameter(0.02 * torch.randn(BUCKETS, 1)) if by_time else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor, gap: Tensor | None = None) -> Tensor:
        """``(batch, length, dim)`` to ``(batch, places, dim)``, for the last places."""
        places, length = visible.shape[2:]
        gate, *parts = F.silu(self.inputs(self.norm(x))).chunk(4, dim=2)
        value, query, key = (heads(part, self.num_heads) for part in parts)
        score = query[:, :, -places:] @ key.mT  # (batch, heads, places, length)
        if self.distance is not None:
            score = score + by_distance(self.distance, places, length)
        if self.time is not None and gap is not None:
            score = score + F.embedding(bucket(gap), self.time)[:, None, :, :, 0]
        weight = F.silu(score) * visible / self.length
        read = (weight @ value).transpose(1, 2).flatten(2)  # (batch, places, dim)
        gated = self.dropout(gate[:, -places:] * self.norm(read))
        output: Tensor = x[:, -places:] + self.output(gated)
        return output


def bucket(gap: Tensor) -> Tensor:
    """Buckets of seconds, equal on a scale of logarithms, as in the authors' code."""
    return (gap.abs().clamp_min(1).float().log() / 0.301).long().clamp_max(BUCKETS - 1)
