"""Softmax over in-batch negatives, of all processes together."""

from torch import Tensor, nn

from twotower.distributed.collectives import RowGatherer, world_size
from twotower.errors import UserError, check_number
from twotower.losses.functional import shared_logits, softmax_cross_entropy
from twotower.types import Batch, Towers


class InBatchSoftmax(nn.Module):
    """Cross-entropy of each positive among the items of the batch (Yi et al., RecSys 2019).

    ``negatives=in_batch`` is the usual choice, ``negatives=mixed`` adds uniform draws. Popular
    items are negatives as often as positives; ``correct_log_q`` corrects for that. Items equal to a
    row's positive are no negatives for it.

    Args:
        temperature: divides the scores.
        correct_log_q: subtract the log sampling probability from the logits, after the temperature.
        gather: with several processes, use the items of all of them as negatives. Two processes
            then compute the same as one with twice the batch size, gradients included; without it
            each process uses only its own items. A sampler's ``exclude_positives`` applies only to
            the own process's items.
    """

    def __init__(self, temperature: float, correct_log_q: bool, gather: bool) -> None:
        super().__init__()
        check_number("loss.task.temperature", temperature, 1e-4, 1e4)
        self.temperature = temperature
        self.correct_log_q = correct_log_q
        self.gather = gather

    def forward(self, towers: Towers, batch: Batch) -> Tensor:
        """Scalar loss.

        Raises:
            UserError: if each positive has negatives of its own.
        """
        if batch.num_draws is None:
            raise UserError(
                "loss/task=in_batch_softmax needs shared negatives: "
                "use it with negatives=in_batch or negatives=mixed"
            )
        # Other shared negatives are the same in all processes.
        if self.gather and batch.in_batch and world_size() > 1:
            towers, batch = gather_items(towers, batch)
        # (batch, num_distinct)
        logits = shared_logits(towers, batch, self.temperature, self.correct_log_q)
        return softmax_cross_entropy(logits, batch.positive, batch.weight)


def gather_items(towers: Towers, batch: Batch) -> tuple[Towers, Batch]:
    """The items of all processes, with gradients that flow back to the process of each item.

    Returns:
        Towers with all items ``(world_size * width, dim)``, and the batch for them. Padding counts
        as never drawn, and copies of a row's positive from other processes are excluded for it.
    """
    assert batch.num_draws is not None
    num = len(batch.item_index)
    gather = RowGatherer(num, towers.item.device)
    item_index, positive = gather(batch.item_index), batch.positive + gather.first
    excluded = item_index == item_index[positive][:, None]  # (batch, world_size * width)
    if batch.excluded is not None:
        excluded[:, gather.first : gather.first + num] |= batch.excluded
    gathered = batch._replace(
        item_index=item_index,
        positive=positive,
        num_draws=gather(batch.num_draws),
        log_q=gather(batch.log_q.contiguous()),
        excluded=excluded,
    )
    return towers._replace(item=gather(towers.item)), gathered
