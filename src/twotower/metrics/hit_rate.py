"""Hit rate."""

from torch import Tensor

from twotower.metrics.base import RankMetric


class HitRate(RankMetric):
    """Share of users with at least one target in the first ``k``."""

    name = "hit_rate"

    def per_user(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets)`` ranks to ``(batch, num_cutoffs)``."""
        return self.hits(rank).any(1)
