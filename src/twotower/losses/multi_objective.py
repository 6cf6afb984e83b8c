"""Several objectives, each learned from its own behaviours: MVKE's loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.distributed.collectives import sum_over_processes, world_size
from twotower.errors import UserError, check_number
from twotower.losses.functional import at_least_float32, own_logits
from twotower.types import Batch, LossOutput, Schema, Towers


class MultiObjective(nn.Module):
    """``Σ_o weight_o BCE_o``: each objective's binary cross-entropy over the positives of its behaviours and their negatives.

    MVKE (Xu et al., 2021, section 3.4) takes the raw inner product, temperature 1; the losses add up.

    Args:
        schema: sizes of the data.
        behaviours: for each objective the behaviours that are its positives, by their index in the data, as in
            ``[[0], [1, 2, 3]]``. One behaviour may serve several objectives.
        weights: one per objective.
        temperature: divides the scores.

    Raises:
        UserError: for settings out of range, and behaviours that the data do not know.
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
                f"loss.behaviours and loss.weights need one entry for each objective, got {behaviours} and {weights}"
            )
        unknown = [one for own in behaviours for one in own if not 0 <= one < schema.num_behaviours]
        if unknown and schema.num_behaviours > 0:
            raise UserError(
                f"loss.behaviours={behaviours}: these data have behaviours 0 to {schema.num_behaviours - 1}"
            )
        self.behaviours = behaviours
        self.weights = weights
        self.temperature = temperature

    def forward(self, towers: Towers, batch: Batch) -> LossOutput:
        """The weighted total, and each objective's loss; 0 where the batch has none of its behaviours.

        Raises:
            UserError: if model, data or negatives do not fit.
        """
        behaviour = self._check(towers, batch)
        terms, total = {}, towers.user.new_zeros(())
        for index, (item, own, weight) in enumerate(
            zip(towers.item_by_objective, self.behaviours, self.weights, strict=True)
        ):
            counts = torch.stack([behaviour == one for one in own]).any(0)  # (batch,)
            loss = masked_bce(
                own_logits(towers._replace(item=item), batch, self.temperature), counts
            )
            terms[f"objective_{index}"] = loss
            total = total + weight * loss
        return LossOutput(total, terms)

    def _check(self, towers: Towers, batch: Batch) -> Tensor:
        if batch.behaviour is None:
            raise UserError(
                "loss=multi_objective needs data with several behaviours, and these have one: set loss=plain"
            )
        if batch.negative is None:
            raise UserError(
                "loss=multi_objective gives each positive negatives of its own: use it with negatives=uniform"
            )
        if len(towers.item_by_objective) != len(self.behaviours):
            raise UserError(
                f"loss.behaviours has {len(self.behaviours)} objectives, the model {len(towers.item_by_objective)}: use it with "
                "model=mvke and as many model.objectives"
            )
        return batch.behaviour


def masked_bce(logits: Tensor, counts: Tensor) -> Tensor:
    """Mean binary cross-entropy over the pairs of some rows, column 0 positive, in float32 at the least.

    With several processes their mean is that over the rows that count of all of them.

    Args:
        logits: ``(batch, 1 + num_negatives)``.
        counts: ``(batch,)`` which rows count; with none the loss is a zero in the graph.
    """
    logits = at_least_float32(logits)
    loss = F.softplus(-logits[:, 0]) + F.softplus(logits[:, 1:]).sum(1)  # (batch,)
    num = sum_over_processes(counts.sum()) / world_size()
    return (loss * counts).sum() / (num * logits.shape[1]).clamp_min(1 / world_size())
