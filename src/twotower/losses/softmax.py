"""Softmax over drawn negatives or over the whole corpus."""

import torch
from torch import Tensor, nn

from twotower.errors import check_number
from twotower.layers.batched import is_batched
from twotower.losses.chunked_softmax import chunked_cross_entropy
from twotower.losses.functional import own_logits, shared_logits, softmax_cross_entropy
from twotower.types import Batch, Towers


class Softmax(nn.Module):
    """Cross-entropy of the positive among itself and its negatives (Yi et al., RecSys 2019).

    ``negatives=corpus`` gives the full softmax, ``shared_uniform`` and ``uniform`` a sampled one.
    Negatives equal to the positive are masked.

    Args:
        temperature: divides the scores; with normalised towers 0.05 to 0.1 works.
        correct_log_q: subtract the log sampling probability from the logits, after the temperature.
        chunk: with shared negatives, rows of the batch whose logits are computed together; None:
            all. The loss is the same, with memory for ``chunk`` times ``num_distinct`` logits. A
            compiled step and several runs in one pass compute all.
    """

    def __init__(self, temperature: float, correct_log_q: bool, chunk: int | None = None) -> None:
        super().__init__()
        check_number("loss.task.temperature", temperature, 1e-4, 1e4)
        if chunk is not None:
            check_number("loss.task.chunk", chunk, 1)
        self.temperature = temperature
        self.correct_log_q = correct_log_q
        self.chunk = chunk

    def forward(self, towers: Towers, batch: Batch) -> Tensor:
        """Scalar loss."""
        settings = self.temperature, self.correct_log_q
        if batch.negative is not None:
            logits = own_logits(towers, batch, *settings)  # (batch, 1 + num_negatives)
            if batch.negative_weight is not None:  # a negative of weight 2 is like two of them
                logits = torch.cat([logits[:, :1], logits[:, 1:] + batch.negative_weight.log()], 1)
            first = batch.positive.new_zeros(len(logits))
            return softmax_cross_entropy(logits, first, batch.weight)
        whole = torch.compiler.is_compiling() or is_batched(towers.user)
        if self.chunk is not None and not whole:
            return chunked_cross_entropy(towers, batch, *settings, self.chunk)
        logits = shared_logits(towers, batch, *settings)  # (batch, num_distinct)
        return softmax_cross_entropy(logits, batch.positive, batch.weight)
