"""Recall."""

from torch import Tensor

from twotower.metrics.base import RankMetric


class Recall(RankMetric):
    """Share of a user's targets in the first ``k``; with one target per user, the hit rate."""

    name = "recall"

    def per_user(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets)`` ranks to ``(batch, num_cutoffs)``."""
        return self.hits(rank).sum(1).double() / (rank > 0).sum(1, keepdim=True)
