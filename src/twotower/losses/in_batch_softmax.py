"""Softmax over shared negatives of all processes: in-batch negatives at the size of the global batch."""

from torch import Tensor, nn

from twotower.distributed.collectives import RowGatherer, world_size
from twotower.errors import UserError, check_number
from twotower.losses.functional import shared_logits, softmax_cross_entropy
from twotower.types import Batch, Towers


class InBatchSoftmax(nn.Module):
    """Cross-entropy of each positive among the items of the batch (Yi et al., RecSys 2019).

    ``negatives=in_batch`` is the usual one, ``negatives=mixed`` adds uniform draws. A popular item is a negative as often as
    it is a positive; ``correct_log_q`` takes that out again. Items equal to a row's positive are no negatives for it.

    Args:
        temperature: divides the scores.
        correct_log_q: subtract the log sampling probability from the logits, after the temperature.
        gather: with several processes, take the items of all of them. Two processes then compute what one would with a
            batch of twice the size, gradients included; without it each has its own negatives alone. A sampler's
            ``exclude_positives`` reaches the own process's items.
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
                "loss/task=in_batch_softmax shares its negatives: use it with negatives=in_batch or negatives=mixed"
            )
        if (
            self.gather and batch.in_batch and world_size() > 1
        ):  # other shared negatives are the same everywhere
            towers, batch = gather_items(towers, batch)
        logits = shared_logits(
            towers, batch, self.temperature, self.correct_log_q
        )  # (batch, num_distinct)
        return softmax_cross_entropy(logits, batch.positive)


def gather_items(towers: Towers, batch: Batch) -> tuple[Towers, Batch]:
    """The items of all processes, with gradients that flow back to the process whose items they are.

    Returns:
        Towers with all items ``(world_size * width, dim)`` and the batch that fits them; padding was never drawn, and an
        item equal to a row's positive is excluded for it in every other place where it stands.
    """
    assert batch.num_draws is not None
    num = len(batch.item_index)
    everyones = RowGatherer(num, towers.item.device)
    item_index, positive = everyones(batch.item_index), batch.positive + everyones.first
    excluded = item_index == item_index[positive][:, None]  # (batch, world_size * width)
    if batch.excluded is not None:
        excluded[:, everyones.first : everyones.first + num] |= batch.excluded
    everywhere = batch._replace(
        item_index=item_index,
        positive=positive,
        num_draws=everyones(batch.num_draws),
        log_q=everyones(batch.log_q.contiguous()),
        excluded=excluded,
    )
    return towers._replace(item=everyones(towers.item)), everywhere
