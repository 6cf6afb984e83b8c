"""Mean reciprocal rank."""

from torch import Tensor

from twotower.metrics.base import RankMetric


class MRR(RankMetric):
    """Mean of ``1 / rank`` of the best-ranked target, over the whole corpus. (The DAT paper prints ten times this.)

    A target that the mask of seen items hides counts 0: it has no place in the list.
    """

    name = "mrr"
    has_cutoffs = False

    def per_user(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets)`` ranks to ``(batch, 1)``."""
        return (1 / rank.double()).where(self.found(rank), 0.0).amax(1, keepdim=True)
