"""Base class of metrics that weigh popular targets less."""

from torch import Tensor

from twotower.errors import check_number
from twotower.metrics.items import ItemMetric


class Debiased(ItemMetric):
    """Mean of a target's gain over all targets, each with weight ``1 / count ** power``.

    A popular item is seen more, so it is a target more often than people who like it explain.
    ``count`` is the item's number of training interactions, and 1 for an item without any. Yang et
    al. (RecSys 2018) take ``power = (γ + 1) / 2`` with a ``γ`` estimated for each data set: 1.35
    for CiteULike, 1.44 for Amazon books, 1.84 for Tradesy. Higher powers give few rare items most
    of the weight; 0.5 is that of Saito et al. (WSDM 2020), 0 weighs all targets alike.

    The paper divides by the sum of weights of each user, then averages over users. With one target
    per user that cancels every weight, so here all targets are divided by the sum of all weights.

    Args:
        num_groups: see :class:`~twotower.metrics.base.RankMetric`.
        k: cut-offs.
        power: of the count.
    """

    def __init__(self, num_groups: int, k: list[int], power: float) -> None:
        super().__init__(num_groups, k)
        check_number(f"metric.{self.name}.power", power, 0, 10)
        self.power = power

    def update(
        self,
        rank: Tensor,
        group: Tensor,
        target: Tensor | None = None,
        lists: Tensor | None = None,
    ) -> None:
        """Add users, see :meth:`~twotower.metrics.base.RankMetric.update`."""
        assert target is not None
        count = self.item_count[target.clamp_min(0)].clamp_min(1)  # (batch, num_targets)
        weight = (rank > 0) / count**self.power
        gain = self.gain(rank).double()  # (batch, num_targets, num_cutoffs)
        for column, member in enumerate(group.unbind(2)):
            own = weight * member  # (batch, num_targets)
            self.total[column] += (own[:, :, None] * gain).sum((0, 1))
            self.count[column] += own.sum()

    def gain(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets)`` ranks to ``(batch, num_targets, num_cutoffs)`` gains."""
        raise NotImplementedError
