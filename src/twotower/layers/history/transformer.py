"""Causal transformer over a history."""

from torch import Tensor, nn

from twotower.errors import check_choice, check_number
from twotower.layers.history.causal import AttentionBlock, CausalEncoder

BLOCKS = ("pre", "post", "sasrec")
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class Transformer(CausalEncoder):
    """SASRec: causal self-attention, read at the last item (Kang and McAuley, ICDM 2018).

    Args:
        dim: width of the item embeddings and of every layer.
        length: number of last items that are read; ``data.history_length`` for all.
        num_layers: blocks.
        num_heads: attention heads; they share ``dim``.
        dropout: of embeddings, attention weights and both parts of a block, in training.
        block: ``pre`` normalises before attention and before the network, as SASRec's paper;
            ``post`` after each, as BERT; ``sasrec`` is the block of the paper's code.
        network_ratio: width of the network's inner layer over ``dim``; 4 in BERT.
        activation: of the network: ``relu``, or ``gelu`` as in BERT.
        positions: ``end``, ``start``, ``relative`` or ``none``, see :class:`CausalEncoder`.
        input_scale: ``none``, ``sqrt_dim`` or ``layer_norm``, see :class:`CausalEncoder`.
        embedding_dropout: of embeddings; None is the same as ``dropout``.

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
        block: str = "pre",
        network_ratio: int = 1,
        activation: str = "relu",
        positions: str = "end",
        input_scale: str = "none",
        embedding_dropout: float | None = None,
    ) -> None:
        check_number("model.history.num_layers", num_layers, 1, 100)
        check_number("model.history.dropout", dropout, 0, 0.99)
        check_number("model.history.network_ratio", network_ratio, 1)
        check_choice("model.history.block", block, BLOCKS)
        check_choice("model.history.activation", activation, tuple(ACTIVATIONS))
        if embedding_dropout is None:
            embedding_dropout = dropout
        check_number("model.history.embedding_dropout", embedding_dropout, 0, 0.99)
        super().__init__(dim, length, embedding_dropout, positions, input_scale)
        self.blocks = nn.ModuleList(
            Block(
                *(dim, num_heads, dropout, block, network_ratio * dim, activation),
                self.num_distances,
            )
            for _ in range(num_layers)
        )
        # A post block ends in a norm of its own.
        self.norm = nn.Identity() if block == "post" else nn.LayerNorm(dim)


class Block(AttentionBlock):
    """One layer: attention, then a two-layer network at every place, each with a skip connection.

    Args:
        dim: width.
        num_heads: attention heads.
        dropout: of attention weights and of both parts' outputs.
        order: where it normalises, see :class:`Transformer`.
        inner_dim: width of the network's inner layer.
        activation: of the network.
        num_distances: see :class:`AttentionBlock`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        dropout: float,
        order: str,
        inner_dim: int,
        activation: str,
        num_distances: int,
    ) -> None:
        super().__init__(dim, num_heads, dropout, num_distances)
        self.order = order
        self.network = nn.Sequential(
            nn.Linear(dim, inner_dim),
            ACTIVATIONS[activation](),
            nn.Dropout(dropout),
            nn.Linear(inner_dim, dim),
        )

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """``(batch, length, dim)`` to ``(batch, places, dim)``, for the last places."""
        places = visible.shape[2]
        if self.order == "post":
            last = x[:, -places:]
            last = self.attention_norm(last + self.dropout(self.attend(last, x, visible)))
            output: Tensor = self.network_norm(last + self.dropout(self.network(last)))
        elif self.order == "sasrec":  # keys and values stay as they are, the skip is normalised
            query = self.attention_norm(x[:, -places:])
            last = self.network_norm(query + self.dropout(self.attend(query, x, visible)))
            output = last + self.dropout(self.network(last))
        else:
            normed = self.attention_norm(x)
            last = x[:, -places:] + self.dropout(self.attend(normed[:, -places:], normed, visible))
            output = last + self.dropout(self.network(self.network_norm(last)))
        return output
