"""Novelty of the recommended items."""

from torch import Tensor

from twotower.metrics.items import ListMetric


class Novelty(ListMetric):
    """Mean of ``-log2 p(i)`` over a user's first ``k`` items, averaged over users.

    ``p(i)`` is the item's share of the training interactions; an item without any counts as one
    with a single interaction. Popular items have low values.

    Source: self-information of Zhou et al., PNAS 2010; Vargas & Castells, RecSys 2011.
    """

    name = "novelty"

    def update(
        self,
        rank: Tensor,
        group: Tensor,
        target: Tensor | None = None,
        lists: Tensor | None = None,
    ) -> None:
        """Add users, see :meth:`~twotower.metrics.base.RankMetric.update`."""
        assert lists is not None
        surprise = (self.item_count.sum() / self.item_count.clamp_min(1)).log2()  # (num_items,)
        known = lists >= 0  # (batch, length); False only at the end of a row
        sums = (surprise[lists.clamp_min(0)] * known).cumsum(1)
        last = self.cut.clamp_max(lists.shape[1]) - 1  # (num_cutoffs,)
        num_items = known.cumsum(1)[:, last]  # (batch, num_cutoffs)
        self.total[0] += (sums[:, last] / num_items.clamp_min(1)).sum(0)
        self.count[0] += known[:, 0].sum()
