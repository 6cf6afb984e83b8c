"""NDCG in which popular targets weigh less."""

import torch
from torch import Tensor

from twotower.metrics.debiased import Debiased


class DebiasedNDCG(Debiased):
    """Weighted mean of ``1 / log2(1 + rank)`` over the targets, 0 after the first ``k``.

    A user's targets do not share one ideal list: each has its own rank, so with several of them no
    ranking has the value 1.
    """

    name = "debiased_ndcg"

    def gain(self, rank: Tensor) -> Tensor:
        """``1 / log2(1 + rank)`` within the cut-off."""
        return self.hits(rank) / torch.log2(1 + rank.clamp_min(1).double())[:, :, None]
