"""Running means of vectors for ids: what augmented vectors are without trained parameters."""

import torch
from torch import Tensor

from twotower.distributed.collectives import RowGatherer, world_size
from twotower.distributed.fetching import Request
from twotower.errors import check_number
from twotower.layers.embedding_table import EmbeddingTable


class RunningMeanTable(EmbeddingTable):
    """An embedding table whose rows are running means of given vectors, without gradient.

    The first updates of a row are averaged evenly, until one update's share has fallen to
    ``1 - momentum``; a row without updates is zero. A step reads and writes the rows of its own ids
    alone, whatever the size of the table. All processes make the same updates.

    Args:
        num_values: see :class:`EmbeddingTable`.
        dim: the same.
        cold_ids: the same; with ``trained``, index 0 has a running mean too.
        momentum: share of the past.
    """

    weight: Tensor  # type: ignore[assignment]  # (num_values, dim), a buffer
    updates: Tensor  # (num_values,)

    def __init__(self, num_values: int, dim: int, cold_ids: str, momentum: float) -> None:
        check_number("model.augment_momentum", momentum, 0, 0.9999)
        super().__init__(num_values, dim, cold_ids)
        del self.weight
        self.register_buffer("weight", torch.zeros(num_values, dim))
        self.register_buffer("updates", torch.zeros(num_values, dtype=torch.long))
        self.momentum = momentum

    def requests(self, index: Tensor) -> list[Request]:
        """Nothing: every process has the whole table."""
        return []

    @torch.no_grad()
    def update(self, index: Tensor, vector: Tensor) -> None:
        """Move the row of each id towards the mean of its vectors in this step.

        Args:
            index: ``(num,)`` ids, which may repeat.
            vector: ``(num, dim)``.
        """
        index, vector = index.long(), vector.detach().to(self.weight.dtype)
        if world_size() > 1:
            gather = RowGatherer(len(index), index.device)
            index, vector = gather(index, -1), gather(vector)
            index, vector = index[index >= 0], vector[index >= 0]  # without padding
        ascending = index.sort().values
        end, start = (torch.searchsorted(ascending, index, right=last) for last in (True, False))
        share = (1 / (self.updates[index] + 1)).clamp_min(1 - self.momentum) / (end - start)
        change = share[:, None] * (vector - self.weight[index])  # (num, dim)
        self.weight.scatter_add_(0, index[:, None].expand_as(change), change)
        self.updates[index] = self.updates[index] + 1
