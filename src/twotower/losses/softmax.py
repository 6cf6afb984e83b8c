"""Softmax over drawn negatives or over the whole corpus."""

from torch import Tensor, nn

from twotower.errors import check_number
from twotower.losses.functional import own_logits, shared_logits, softmax_cross_entropy
from twotower.types import Batch, Towers


class Softmax(nn.Module):
    """Cross-entropy of the positive among itself and its negatives (Yi et al., RecSys 2019).

    ``negatives=corpus`` gives the full softmax, ``shared_uniform`` and ``uniform`` a sampled one.
    Negatives equal to the positive are masked.

    Args:
        temperature: divides the scores; with normalised towers 0.05 to 0.1 works.
        correct_log_q: subtract the log sampling probability from the logits, after the temperature.
    """

    def __init__(self, temperature: float, correct_log_q: bool) -> None:
        super().__init__()
        check_number("loss.task.temperature", temperature, 1e-4, 1e4)
        self.temperature = temperature
        self.correct_log_q = correct_log_q

    def forward(self, towers: Towers, batch: Batch) -> Tensor:
        """Scalar loss."""
        if batch.negative is None:
            # (batch, num_distinct)
            logits = shared_logits(towers, batch, self.temperature, self.correct_log_q)
            return softmax_cross_entropy(logits, batch.positive)
        # (batch, 1 + num_negatives)
        logits = own_logits(towers, batch, self.temperature, self.correct_log_q)
        return softmax_cross_entropy(logits, batch.positive.new_zeros(len(logits)))
