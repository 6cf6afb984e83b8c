"""Running covariance of each category over batches."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twotower.errors import UserError
from twotower.layers.batched import sum_rows
from twotower.losses.covariance import CategoryCovariance

MAX_STATE = 1 << 28  # numbers in the running covariances: 1 GiB of float32


class RunningCovariance(nn.Module):
    """Each category's covariance as a moving average over batches.

    The first batches are averaged evenly, until one batch's share has fallen to ``1 - momentum``,
    so the state does not start from zeros. The width of the vectors is known from the first batch
    or from a checkpoint.

    Args:
        num_categories: number of matrices.
        momentum: share of the past.
    """

    covariance: Tensor  # (num_categories + 1, dim, dim); the last one takes what is left out
    updates: Tensor  # (num_categories + 1,)

    def __init__(self, num_categories: int, momentum: float) -> None:
        super().__init__()
        self.num_categories = num_categories
        self.momentum = momentum
        self.register_buffer("covariance", torch.zeros(0))
        self.register_buffer("updates", torch.zeros(num_categories + 1, dtype=torch.long))

    def forward(self, current: CategoryCovariance) -> CategoryCovariance:
        """Blend the batch's covariances with their past; in training, update the state.

        Raises:
            UserError: if the state would be too large.
        """
        if self.covariance.dim() == 1:
            self._allocate(current.covariance.shape[-1], current.covariance)
        past = self.covariance.index_select(0, current.category).to(current.covariance.dtype)
        share = self._share().index_select(0, current.category).to(past.dtype)
        blended = torch.lerp(past, current.covariance, share[:, None, None])
        if self.training:
            self._update(current)
        return current._replace(covariance=blended)

    def _share(self) -> Tensor:
        """``(num_categories + 1,)`` weight of the current batch."""
        return (1 / (self.updates + 1).double()).clamp_min(1 - self.momentum)

    @torch.no_grad()
    def _update(self, current: CategoryCovariance) -> None:
        counted = current.n > 0  # (num_groups,)
        num_places = len(self.updates)
        occurs = sum_rows(counted.long(), current.category, num_places).clamp_max(1)
        matrices = counted[:, None, None] * current.covariance.to(self.covariance.dtype)
        new = sum_rows(matrices, current.category, num_places)
        share = (self._share() * occurs).to(new.dtype)
        # Not ``lerp_``, which would run once for each model under ``torch.vmap``.
        self.covariance.copy_(torch.lerp(self.covariance, new, share[:, None, None]))
        self.updates += occurs

    def _allocate(self, dim: int, like: Tensor) -> None:
        size = (self.num_categories + 1) * dim * dim
        if size > MAX_STATE:
            raise UserError(
                f"loss.alignment.momentum keeps {self.num_categories:,} covariances of "
                f"{dim} x {dim}, {4 * size / 2**30:.1f} GiB: set loss.alignment.momentum=0, "
                "or lower the model's dim"
            )
        self.covariance = like.new_zeros(self.num_categories + 1, dim, dim)

    def allocate_for(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Take the width of the vectors from weights that will be loaded.

        Args:
            state: weights by name.
            prefix: of the names of this module.
        """
        saved = state.get(f"{prefix}covariance")
        if self.covariance.dim() == 1 and saved is not None and saved.dim() == 3:
            self._allocate(saved.shape[-1], self.covariance)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        self.allocate_for(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
