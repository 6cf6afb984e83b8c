"""Normalised discounted cumulative gain."""

import torch
from torch import Tensor

from twotower.metrics.base import RankMetric


class NDCG(RankMetric):
    """``Σ 1 / log2(1 + rank)`` over targets in the first ``k``, divided by its best value.

    Source: Järvelin & Kekäläinen, 2002.
    """

    name = "ndcg"

    def per_user(self, rank: Tensor) -> Tensor:
        """``(batch, num_targets)`` ranks to ``(batch, num_cutoffs)``."""
        gain = 1 / torch.log2(1 + rank.clamp_min(1).double())  # (batch, num_targets)
        dcg = (gain[:, :, None] * self.hits(rank)).sum(1)  # (batch, num_cutoffs)
        best_gain = 1 / torch.log2(2 + torch.arange(rank.shape[1], device=rank.device).double())
        num_targets = (rank > 0).sum(1, keepdim=True).minimum(self.cut)  # (batch, num_cutoffs)
        best = torch.cat([best_gain.new_zeros(1), best_gain.cumsum(0)])[num_targets]
        return dcg / best
