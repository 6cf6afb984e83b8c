"""Base classes of metrics that read more than ranks: training counts of items, or users' lists."""

from torch import Tensor

from twotower.metrics.base import RankMetric


class ItemMetric(RankMetric):
    """Knows how often each item of the corpus occurs in training.

    It has no value per user that a report could compute from ranks alone.
    """

    item_count: Tensor  # (num_items,) in float64
    from_ranks = False

    def use_items(self, item_count: Tensor) -> None:
        """Take the training interactions of each item, ``(num_items,)``, before any update."""
        self.register_buffer("item_count", item_count.double(), persistent=False)


class ListMetric(ItemMetric):
    """Reads the first ``k`` items of each user, without those that are masked as seen.

    Subclasses define ``update``. A list belongs to a user, not to a target, so there is a value for
    all users, in row 0, and none for groups of targets.

    Args:
        num_groups: see :class:`~twotower.metrics.base.RankMetric`.
        k: cut-offs.
    """

    has_groups = False

    def __init__(self, num_groups: int, k: list[int]) -> None:
        super().__init__(num_groups, k)
        self.list_length = max(k)
