"""The tower: a multi-layer perceptron with optional L2 normalisation."""

import torch.nn.functional as F
from torch import Tensor, nn

from twotower.errors import UserError, check_choice, check_number

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}


class Tower(nn.Module):
    """Fully connected layers, an activation on each, optionally L2-normalised (DAT, Eq. 1).

    Args:
        input_dim: width of the concatenated embeddings.
        hidden_dims: widths of the hidden layers; may be empty.
        dim: width of the output.
        activation: after each hidden layer.
        last_activation: after the last layer. The paper's ``relu`` keeps scores in [0, 1]; ``none``
            usually works better.
        normalize: divide by the L2 norm. An all-zero row, which ReLU can give, stays zero and gets
            no gradient.
        dropout: share of hidden units dropped in training.

    Raises:
        UserError: for an unknown activation or a width below 1.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: list[int],
        dim: int,
        activation: str,
        last_activation: str,
        normalize: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        check_choice("model.activation", activation, tuple(ACTIVATIONS))
        check_choice("model.last_activation", last_activation, tuple(ACTIVATIONS))
        check_number("model.dropout", dropout, 0, 0.99)
        widths = [input_dim, *hidden_dims, dim]
        if any(not isinstance(width, int) or width < 1 for width in widths):
            raise UserError(
                "model.hidden_dims and model.dim must be whole numbers >= 1, "
                f"got {hidden_dims} and {dim}"
            )
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            is_last = index == len(hidden_dims)
            name = last_activation if is_last else activation
            layers += [nn.Linear(before, after), ACTIVATIONS[name]()]
            if dropout > 0 and not is_last:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers)
        self.normalize = normalize

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, input_dim)`` to ``(batch, dim)``."""
        x = self.layers(x)  # (batch, dim)
        return F.normalize(x, dim=1, eps=1e-6) if self.normalize else x
