"""What several processes have together: rows of all of them, with gradients, sums, and their number."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class RowGatherer:
    """Puts the rows of all processes one after the other, each process's padded to the most that one has.

    Args:
        num: rows of this process.
        device: where they are.
    """

    def __init__(self, num: int, device: torch.device) -> None:
        self.num = num
        self.width = int(_all_gather(torch.tensor([num], device=device)).max())
        self.first = dist.get_rank() * self.width  # place of this process's first row

    def __call__(self, own: Tensor, padding: float = 0) -> Tensor:
        """``(num, ...)`` to ``(world_size * width, ...)``; gradients flow back to the process whose rows they are."""
        padded = torch.cat([own, own.new_full((self.width - self.num, *own.shape[1:]), padding)])
        return _GatherRows.apply(padded).flatten(0, 1)


class _GatherRows(torch.autograd.Function):
    """``(width, ...)`` of each process to ``(world_size, width, ...)``; the gradients of all processes are added up."""

    @staticmethod
    def forward(ctx: object, own: Tensor) -> Tensor:
        return _all_gather(own)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def sum_over_processes(own: Tensor) -> Tensor:
    """The sum of a tensor that needs no gradient."""
    if world_size() > 1:
        own = own.clone()
        dist.all_reduce(own)
    return own


def _all_gather(own: Tensor) -> Tensor:
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.contiguous())
    return torch.stack(parts)


class Placeholder(nn.Module):
    """A zero with a gradient, in no checkpoint: DDP refuses a model whose every parameter it shall leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """A scalar zero."""
        return 0 * self.number

    def _save_to_state_dict(self, *args: Any) -> None:
        """Nothing."""

    def _load_from_state_dict(self, *args: Any) -> None:
        """Nothing."""
