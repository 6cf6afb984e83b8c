"""The tower: a multi-layer perceptron or a sum of the inputs, optionally L2-normalised."""

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
TOWERS = ("mlp", "identity", "residual")


class Tower(nn.Module):
    """Fully connected layers, an activation on each, optionally L2-normalised (DAT, Eq. 1).

    ``kind`` may replace or extend them. ``identity`` has no layers: the inputs, each as wide as the
    output, are summed, so that a tower with one input returns it. ``residual`` adds the layers of
    all inputs to the sum of the features; the last layer starts at zero, so the tower starts as
    that sum.

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
        kind: ``mlp``, ``identity`` or ``residual``.
        num_augmented: last columns of the input that are an augmented vector, no feature.

    Raises:
        UserError: for an unknown activation or kind, a width below 1, hidden layers of a tower
            that has none, and a last activation of a tower that ends in a sum.
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
        kind: str = "mlp",
        num_augmented: int = 0,
    ) -> None:
        super().__init__()
        check_choice("model.tower", kind, TOWERS)
        check_choice("model.activation", activation, tuple(ACTIVATIONS))
        check_choice("model.last_activation", last_activation, tuple(ACTIVATIONS))
        check_number("model.dropout", dropout, 0, 0.99)
        widths = [input_dim, *hidden_dims, dim]
        if any(not isinstance(width, int) or width < 1 for width in widths):
            raise UserError(
                "model.hidden_dims and model.dim must be whole numbers >= 1, "
                f"got {hidden_dims} and {dim}"
            )
        self.kind, self.dim = kind, dim
        self.num_summed = input_dim - (num_augmented if kind == "residual" else 0)
        self.normalize = normalize
        if kind != "mlp" and last_activation != "none":
            # ReLU would also leave the last layer of a residual tower at zero for ever.
            raise UserError(f"model.tower={kind} ends in a sum: set model.last_activation=none")
        if kind == "identity":
            if hidden_dims:
                raise UserError("model.tower=identity has no layers: set model.hidden_dims=[]")
            return
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            is_last = index == len(hidden_dims)
            name = last_activation if is_last else activation
            layers += [nn.Linear(before, after), ACTIVATIONS[name]()]
            if dropout > 0 and not is_last:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers)
        if kind == "residual":
            last = next(layer for layer in reversed(layers) if isinstance(layer, nn.Linear))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, input_dim)`` to ``(batch, dim)``."""
        if self.kind == "mlp":
            output: Tensor = self.layers(x)  # (batch, dim)
        else:
            output = x[:, : self.num_summed].unflatten(1, (-1, self.dim)).sum(1)  # (batch, dim)
            output = output + self.layers(x) if self.kind == "residual" else output
        return F.normalize(output, dim=1, eps=1e-6) if self.normalize else output


def check_summable(kind: str, embedding_dim: int, dim: int) -> None:
    """Refuse features that are not as wide as the output of a tower which sums them.

    Raises:
        UserError: naming how to mend it.
    """
    if kind in ("identity", "residual") and embedding_dim != dim:
        raise UserError(
            f"model.tower={kind} sums the features: set model.embedding_dim={dim}, the value of "
            "model.dim"
        )
