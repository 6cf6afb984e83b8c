"""Base class of the ranking metrics: sums over users, overall and per group."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from twotower.errors import UserError
from twotower.types import HIDDEN_RANK


class RankMetric(Metric):
    """Averages a function of the targets' ranks over users.

    A user's value is computed from the ranks of the user's targets among all candidates, so no
    predictions are stored and the sums of several processes add up exactly. In a group, only the
    targets that belong to it count. Subclasses define :meth:`per_user` and ``name``.

    Args:
        k: cut-offs; None for a metric without one.
        num_groups: columns of the ``group`` matrix given to ``update``.

    Raises:
        UserError: for a cut-off that is not a whole number >= 1, or for a metric without one.
    """

    name: str
    total: Tensor  # (num_groups, num_cutoffs)
    count: Tensor  # (num_groups,) users
    cut: Tensor  # (num_cutoffs,)
    full_state_update = False
    has_cutoffs = True
    from_ranks = True  # each user's value can be computed from the user's ranks alone
    has_groups = True  # there is a value for each group of targets
    list_length = 0  # items of each user's list that `update` reads

    def __init__(self, num_groups: int, k: list[int] | None = None) -> None:
        super().__init__()
        if not self.has_cutoffs and k is not None:
            raise UserError(f"metric.{self.name} has no cut-offs: leave metric.{self.name}.k out")
        if self.has_cutoffs and (not k or any(not isinstance(cut, int) or cut < 1 for cut in k)):
            raise UserError(f"metric.{self.name}.k must list whole numbers >= 1, got {k}")
        self.k = k
        self.register_buffer("cut", torch.tensor(k or [0]), persistent=False)
        total = torch.zeros(num_groups, len(self.cut), dtype=torch.float64)
        self.add_state("total", total, dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(num_groups, dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """Apply changes of device, not of dtype: bfloat16 cannot count above 256."""
        device = fn(torch.empty(0)).device
        return super()._apply(lambda tensor: tensor.to(device), exclude_state)

    def update(
        self,
        rank: Tensor,
        group: Tensor,
        target: Tensor | None = None,
        lists: Tensor | None = None,
    ) -> None:
        """Add users.

        Args:
            rank: ``(batch, num_targets)``, 1 is best, 0 pads users with fewer targets,
                ``HIDDEN_RANK`` is the rank of a target that is masked as seen.
            group: ``(batch, num_targets, num_groups)`` membership of each target.
            target: ``(batch, num_targets)`` corpus indices, -1 pads; not read here.
            lists: ``(batch, length)`` the best items that are not masked as seen, -1 pads; not read
                here. None if no metric of the run has a ``list_length``.
        """
        for column, member in enumerate(group.unbind(2)):
            ranks = rank * member  # (batch, num_targets)
            counts = (ranks > 0).any(1)  # (batch,)
            self.total[column] += self.per_user(ranks).double().where(counts[:, None], 0).sum(0)
            self.count[column] += counts.sum()

    def compute(self) -> Tensor:
        """``(num_groups, num_cutoffs)`` means; NaN for a group without users."""
        return self.total / self.count[:, None]

    def per_user(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets)`` ranks, 0 is padding, to ``(batch, num_cutoffs)`` values.

        Values of users without targets are ignored.
        """
        raise NotImplementedError

    def labels(self) -> list[str]:
        """Names of the columns of :meth:`compute`: ``hit_rate@10`` and so on."""
        return [self.name] if self.k is None else [f"{self.name}@{cut}" for cut in self.k]

    def is_listed(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets)``, False for padding and for targets that are masked as seen."""
        return (rank >= 1) & (rank < HIDDEN_RANK)

    def hits(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets, num_cutoffs)``, True for targets within the cut-off."""
        return self.is_listed(rank)[:, :, None] & (rank[:, :, None] <= self.cut)
