"""Binary cross-entropy that corrects the overconfidence which sampled negatives cause."""

import torch.nn.functional as F
from torch import Tensor, nn

from twotower.errors import UserError, check_number
from twotower.layers.precision import at_least_float32
from twotower.losses.functional import mean_of_pairs, own_logits
from twotower.types import Batch, Towers


class GBCE(nn.Module):
    """Binary cross-entropy with ``σ(s)^β`` in place of ``σ(s)`` for positives.

    With few sampled negatives the scores of positives grow beyond the true probabilities. ``β =
    t (α - 1) + 1`` corrects that for ``t = 1``, where ``α`` is the share of the other items that is
    drawn for a positive. ``t = 0`` is :class:`~twotower.losses.bce.BCE`.

    Source: Petrov & Macdonald, gSASRec, RecSys 2023.

    Args:
        temperature: divides the scores; the paper has none (1).
        calibration: ``t``, from 0 to 1; the paper takes .75.
    """

    def __init__(self, temperature: float, calibration: float) -> None:
        super().__init__()
        check_number("loss.task.temperature", temperature, 1e-4, 1e4)
        check_number("loss.task.calibration", calibration, 0, 1)
        self.temperature = temperature
        self.calibration = calibration

    def forward(self, towers: Towers, batch: Batch) -> Tensor:
        """Scalar loss, a mean over ``T`` pairs.

        Raises:
            UserError: if the negatives are shared by the batch.
        """
        if batch.negative is None:
            raise UserError(
                "loss/task=gbce needs each positive's own negatives: use it with negatives=uniform"
            )
        logits = at_least_float32(own_logits(towers, batch, self.temperature))
        # a draw finds an item with probability exp(log_q)
        share = batch.negative.shape[1] * batch.log_q[batch.positive].exp()  # (batch,) α
        power = self.calibration * (share.clamp_max(1) - 1) + 1  # β
        positive = power.to(logits.dtype) * F.softplus(-logits[:, 0])  # (batch,)
        negative = F.softplus(logits[:, 1:])
        return mean_of_pairs(positive, negative, batch.weight, batch.negative_weight)
