"""Binary cross-entropy over positives and their own negatives, DAT's task loss."""

from torch import Tensor, nn

from twotower.errors import UserError, check_number
from twotower.losses.functional import binary_cross_entropy, own_logits
from twotower.types import Batch, Towers


class BCE(nn.Module):
    """``σ(<p_u, p_v> / temperature)`` against the label, mean over ``T`` pairs (DAT, Eq. 4).

    With normalised towers that end in a ReLU, scores lie in [0, 1] and the loss cannot fall below
    .617 for four negatives. A ``temperature`` below 1 or ``model.last_activation=none`` removes
    this bound.

    Args:
        temperature: divides the scores; the paper has none (1).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        check_number("loss.task.temperature", temperature, 1e-4, 1e4)
        self.temperature = temperature

    def forward(self, towers: Towers, batch: Batch) -> Tensor:
        """Scalar loss.

        Raises:
            UserError: if the negatives are shared by the batch.
        """
        if batch.negative is None:
            raise UserError(
                "loss/task=bce needs each positive's own negatives: use it with negatives=uniform"
            )
        logits = own_logits(towers, batch, self.temperature)
        return binary_cross_entropy(logits, batch.weight, batch.negative_weight)
