"""Mean reciprocal rank."""

from torch import Tensor

from twotower.metrics.base import RankMetric


class MRR(RankMetric):
    """Mean of ``1 / rank`` of each user's best-ranked target in the whole corpus.

    A target that is masked as seen counts 0. The DAT paper prints ten times this value.
    """

    name = "mrr"
    has_cutoffs = False

    def per_user(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets)`` ranks to ``(batch, 1)``."""
        return (1 / rank.double()).where(self.is_listed(rank), 0.0).amax(1, keepdim=True)
