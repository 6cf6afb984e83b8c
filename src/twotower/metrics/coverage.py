"""Coverage of the corpus."""

import torch
from torch import Tensor

from twotower.metrics.items import ListMetric

NEVER = 2**62  # place of an item in no list


class Coverage(ListMetric):
    """Share of the corpus that is among the first ``k`` items of at least one user.

    Source: aggregate diversity, Adomavicius & Kwon, 2012, divided by the number of items.
    """

    name = "coverage"
    place: Tensor  # (num_items,) best place of each item in any list, from 1

    def use_items(self, item_count: Tensor) -> None:
        """See :class:`~twotower.metrics.items.ItemMetric`."""
        super().use_items(item_count)
        place = torch.full(item_count.shape, NEVER, device=item_count.device)
        self.add_state("place", place, dist_reduce_fx="min")

    def update(
        self,
        rank: Tensor,
        group: Tensor,
        target: Tensor | None = None,
        lists: Tensor | None = None,
    ) -> None:
        """Add users, see :meth:`~twotower.metrics.base.RankMetric.update`."""
        assert lists is not None
        known = lists >= 0
        place = torch.arange(1, lists.shape[1] + 1, device=lists.device).expand_as(lists)
        self.place.scatter_reduce_(0, lists[known], place[known], "amin")

    def compute(self) -> Tensor:
        """``(num_groups, num_cutoffs)``; NaN but in row 0."""
        value = torch.full_like(self.total, torch.nan)
        value[0] = (self.place[:, None] <= self.cut).double().mean(0)
        return value
