"""Hit rate in which popular targets weigh less."""

from torch import Tensor

from twotower.metrics.debiased import Debiased


class DebiasedHitRate(Debiased):
    """Weighted share of the targets in the first ``k``."""

    name = "debiased_hit_rate"

    def gain(self, rank: Tensor) -> Tensor:
        """1 within the cut-off."""
        return self.hits(rank)
