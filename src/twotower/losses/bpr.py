"""Bayesian personalised ranking of each positive against its own negatives."""

import torch.nn.functional as F
from torch import Tensor, nn

from twotower.errors import UserError, check_number
from twotower.layers.precision import at_least_float32
from twotower.losses.functional import own_logits
from twotower.types import Batch, Towers


class BPR(nn.Module):
    """``-log σ((s_positive - s_negative) / temperature)``, mean over the pairs.

    Source: Rendle et al., UAI 2009. The optimizer's ``weight_decay`` takes the place of the
    paper's prior on the parameters. Negatives equal to the positive contribute 0.

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
                "loss/task=bpr needs each positive's own negatives: use it with negatives=uniform"
            )
        logits = own_logits(towers, batch, self.temperature)
        return pairwise_logistic(logits, batch.weight, batch.negative_weight)


def pairwise_logistic(
    logits: Tensor, weight: Tensor | None = None, negative_weight: Tensor | None = None
) -> Tensor:
    """Mean of ``softplus(-(positive - negative))`` over all pairs, in float32 or better.

    Args:
        logits: ``(batch, 1 + num_negatives)``, column 0 positive; masked negatives are ``-inf``.
        weight: ``(batch,)``, see :class:`~twotower.types.Batch`.
        negative_weight: ``(num_negatives,)``, see :class:`~twotower.types.Batch`.
    """
    logits = at_least_float32(logits)
    loss = F.softplus(logits[:, 1:] - logits[:, :1])  # (batch, num_negatives)
    if negative_weight is not None:
        loss = negative_weight * loss
    return (loss if weight is None else weight[:, None] * loss).mean()
