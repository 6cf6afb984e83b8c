"""Full-ranking evaluation: ranks each user's targets among all items, in all processes."""

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from twotower.distributed.collectives import sum_over_processes
from twotower.distributed.sharding import Block
from twotower.errors import UserError
from twotower.layers.precision import float32_weights, full_precision
from twotower.metrics.base import RankMetric
from twotower.retrieval.corpus import Corpus, own_block
from twotower.retrieval.exact import encode_users
from twotower.types import HIDDEN_RANK, EvalBatch, Features, Model

# logged beside the metrics: all-zero item vectors, the mean cosine of two item vectors, and targets
# that the mask of seen items hides
SHARES = ("zero_items", "item_cosine", "hidden_targets")


class Evaluation:
    """One evaluation at a time: ``start``, then ``rank`` for each batch of users, then ``finish``.

    Args:
        model: gives the vectors.
        metrics: updated with each target's rank.
        group_names: of the columns of ``EvalBatch.group``; the unnamed one is all targets.
    """

    def __init__(
        self, model: Model, metrics: list[RankMetric], group_names: tuple[str, ...]
    ) -> None:
        self.model = model
        self.metrics = metrics
        self.group_names = group_names
        self.list_length = max((metric.list_length for metric in metrics), default=0)
        self.items = Corpus(torch.empty(0))  # item vectors, while evaluating
        self.precision = "32-true"  # of the trainer, for messages
        self._num_targets = torch.zeros(2, dtype=torch.long)  # of this process: hidden ones, all
        self._in_full = ExitStack()  # weights in full precision, from start to finish

    @property
    def corpus(self) -> Tensor:
        """``(num_items, dim)`` item vectors while evaluating; with several processes its block."""
        return self.items.own

    def names(self) -> list[str]:
        """Names that :meth:`finish` may return."""
        found = []
        for group in self.group_names:
            metrics = [metric for metric in self.metrics if metric.has_groups or not group]
            found += [_in_group(group, label) for metric in metrics for label in metric.labels()]
        return [*found, *SHARES]

    def start(
        self,
        corpus: Callable[[torch.device, Block | None], Iterable[Features]],
        num_items: int,
        device: torch.device,
        precision: str,
    ) -> None:
        """Encode the corpus, in several processes a block of it in each.

        Args:
            corpus: gives the features of all items or of a block, in chunks, as ``data.corpus``.
            num_items: of the corpus.
            device: where ranks will be.
            precision: of the trainer, for messages.

        Raises:
            UserError: for vectors that are not finite.
        """
        self.precision = precision
        self._num_targets = torch.zeros(2, dtype=torch.long, device=device)
        for metric in self.metrics:
            metric.reset()
        self._in_full.close()  # an earlier evaluation may have been interrupted
        if isinstance(self.model, nn.Module):
            self._in_full.enter_context(float32_weights(self.model))
        block = own_block(num_items)
        self.items = Corpus.encoded(self.model, corpus(device, block), num_items, block)
        if not self.items.is_finite():
            raise _not_finite("item", precision)

    def rank(self, batch: EvalBatch) -> Tensor:
        """Rank the corpus for some users and count their targets.

        Returns:
            ``(batch, num_targets)``; 0 where a target is padding.

        Raises:
            UserError: for vectors that are not finite.
        """
        user = encode_users(self.model, batch.user)  # (batch, dim)
        if not torch.isfinite(user).all():
            raise _not_finite("user", self.precision)
        seen = batch.seen_row, batch.seen_item
        # of (batch, num_targets) and (batch, list_length)
        rank, lists = self.items.rank(user, batch.target, *seen, self.list_length)
        self._num_targets += torch.stack([(rank == HIDDEN_RANK).sum(), (rank > 0).sum()])
        with full_precision(rank.device):
            for metric in self.metrics:
                metric.update(rank, batch.group, batch.target, lists)
        return rank  # (batch, num_targets)

    def finish(self) -> dict[str, float]:
        """Metrics over all processes, overall and by group; groups without users are left out."""
        values: dict[str, float] = {}
        for metric in self.metrics:
            for group, row in zip(self.group_names, metric.compute().tolist(), strict=True):
                for label, value in zip(metric.labels(), row, strict=True):
                    if not math.isnan(value):
                        values[_in_group(group, label)] = value
        values["zero_items"] = self.items.zero_share()
        values["item_cosine"] = self.items.mean_cosine()
        hidden, num_targets = sum_over_processes(self._num_targets).tolist()
        values["hidden_targets"] = hidden / max(1, num_targets)
        self.items = Corpus(torch.empty(0))
        self._in_full.close()
        return values


def _not_finite(side: str, precision: str) -> UserError:
    """The refusal of vectors that are not finite: their ranks would look like a result."""
    return UserError(f"{side} vectors are no longer finite numbers: {cure_of_overflow(precision)}")


def cure_of_overflow(precision: str) -> str:
    """How to mend numbers that are no longer finite."""
    usual = "lower optimizer.lr or the loss weights"
    if not precision.startswith("16"):
        return usual
    return (
        f"16-bit floats (trainer.precision={precision}) end at 65,504: "
        f"take bf16-mixed or 32-true, or {usual}"
    )


def _in_group(group: str, label: str) -> str:
    return f"{group}/{label}".lstrip("/")
