"""MVKE's loss: several objectives, each learned from its own behaviours."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.distributed.collectives import sum_over_processes, world_size
from twotower.errors import UserError, check_number
from twotower.layers.precision import at_least_float32
from twotower.losses.functional import own_logits
from twotower.types import Batch, LossOutput, Schema, Towers


class MultiObjective(nn.Module):
    """``Σ_o weight_o BCE_o``: binary cross-entropies over the positives of each objective.

    An objective's positives are those of its behaviours, with their negatives. MVKE (Xu et al.,
    2021, section 3.4) uses the raw inner product (temperature 1) and adds the losses up.

    Args:
        schema: sizes of the data.
        behaviours: for each objective the indices of its behaviours in the data, as in
            ``[[0], [1, 2, 3]]``. Several objectives may share a behaviour.
        weights: one per objective.
        temperature: divides the scores.

    Raises:
        UserError: for settings out of range, and behaviours that the data do not have.
    """

    def __init__(
        self, schema: Schema, behaviours: list[list[int]], weights: list[float], temperature: float
    ) -> None:
        super().__init__()
        check_number("loss.temperature", temperature, 1e-4, 1e4)
        for weight in weights:
            check_number("loss.weights", weight, 0)
        if not behaviours or not all(behaviours) or len(weights) != len(behaviours):
            raise UserError(
                "loss.behaviours and loss.weights need one entry for each objective, "
                f"got {behaviours} and {weights}"
            )
        last = schema.num_behaviours - 1  # -1: the data have one behaviour, see forward
        if last >= 0 and any(not 0 <= index <= last for own in behaviours for index in own):
            raise UserError(f"loss.behaviours={behaviours}: the data have behaviours 0 to {last}")
        self.behaviours = behaviours
        self.weights = weights
        self.temperature = temperature

    def forward(self, towers: Towers, batch: Batch) -> LossOutput:
        """The weighted total, and each objective's loss; 0 for one without positives in the batch.

        Raises:
            UserError: for a model, data or negatives that do not fit.
        """
        behaviour = self._check(towers, batch)
        terms, total = {}, towers.user.new_zeros(())
        for index, item in enumerate(towers.item_by_objective):
            matches = [behaviour == own for own in self.behaviours[index]]
            counts = torch.stack(matches).any(0)  # (batch,)
            logits = own_logits(towers._replace(item=item), batch, self.temperature)
            loss = masked_bce(logits, counts, batch.weight, batch.negative_weight)
            terms[f"objective_{index}"] = loss
            total = total + self.weights[index] * loss
        return LossOutput(total, terms)

    def _check(self, towers: Towers, batch: Batch) -> Tensor:
        if batch.behaviour is None:
            raise UserError(
                "loss=multi_objective needs data with several behaviours: set loss=plain"
            )
        if batch.negative is None:
            raise UserError(
                "loss=multi_objective needs each positive's own negatives: "
                "use it with negatives=uniform"
            )
        if len(towers.item_by_objective) != len(self.behaviours):
            raise UserError(
                f"loss.behaviours has {len(self.behaviours)} objectives, the model "
                f"{len(towers.item_by_objective)}: use it with model=mvke and as many "
                "model.objectives"
            )
        return batch.behaviour


def masked_bce(
    logits: Tensor,
    counts: Tensor,
    weight: Tensor | None = None,
    negative_weight: Tensor | None = None,
) -> Tensor:
    """Mean binary cross-entropy over the pairs of some rows, in float32 or better.

    The mean over processes is the mean over the counted rows of all processes.

    Args:
        logits: ``(batch, 1 + num_negatives)``, column 0 positive.
        counts: ``(batch,)`` True for rows that count; without any the loss is a zero in the graph.
        weight: ``(batch,)``, see :class:`~twotower.types.Batch`.
        negative_weight: ``(num_negatives,)``, see :class:`~twotower.types.Batch`.
    """
    logits = at_least_float32(logits)
    negative = F.softplus(logits[:, 1:])
    if negative_weight is not None:
        negative = negative_weight * negative
    loss = F.softplus(-logits[:, 0]) + negative.sum(1)  # (batch,)
    if weight is not None:
        loss = weight * loss
    num = sum_over_processes(counts.sum()) / world_size()
    return (loss * counts).sum() / (num * logits.shape[1]).clamp_min(1 / world_size())
