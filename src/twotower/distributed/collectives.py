"""Operations over all training processes: number, sums, and gathered rows with gradients."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

BLOCK = 1 << 16  # rows gathered at a time


def world_size() -> int:
    """Number of training processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class RowGatherer:
    """Concatenates the rows of all processes, each process's padded to the largest number of rows.

    Args:
        num: rows of this process.
        device: of the rows.
    """

    def __init__(self, num: int, device: torch.device) -> None:
        self.num = num
        self.width = largest_over_processes(num, device)
        self.first = dist.get_rank() * self.width  # place of this process's first row

    def __call__(self, own: Tensor, padding: float = 0) -> Tensor:
        """``(num, ...)`` to ``(world_size * width, ...)``, with gradients to each row's process."""
        padded = torch.cat([own, own.new_full((self.width - self.num, *own.shape[1:]), padding)])
        rows: Tensor = _GatherRows.apply(padded)  # (world_size, width, ...)
        return rows.flatten(0, 1)

    @property
    def own(self) -> slice:
        """This process's rows among the gathered ones."""
        return slice(self.first, self.first + self.num)


class _GatherRows(torch.autograd.Function):
    """``(width, ...)`` of each process to ``(world_size, width, ...)``; gradients are added up."""

    @staticmethod
    def forward(ctx: object, own: Tensor) -> Tensor:
        return all_gather(own)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def sum_over_processes(own: Tensor) -> Tensor:
    """Sum of a tensor over processes, without gradient."""
    if world_size() > 1:
        own = own.clone()
        dist.all_reduce(own)
    return own


def largest_over_processes(num: int, device: torch.device) -> int:
    """The largest of the processes' numbers, which travel by ``device``."""
    return int(all_gather(torch.tensor([num], device=device)).max())


def gather_to_first(own: Tensor) -> Tensor:
    """``(num, ...)`` rows of all processes, by process, in process 0; no rows in the others.

    Each process may have another number of rows. They are sent block by block, so a process needs
    memory for its own rows and a block, and process 0 for all of them.
    """
    if world_size() == 1:
        return own
    counts = all_gather(torch.tensor(len(own), device=own.device)).tolist()
    is_first = dist.get_rank() == 0
    whole = own.new_empty(sum(counts) if is_first else 0, *own.shape[1:])
    gather_into(list(whole.split(counts)) if is_first else [], own, max(counts))
    return whole


def gather_into(places: list[Tensor], own: Tensor, most: int) -> None:
    """Copy the rows of all processes to their places, block by block.

    Args:
        places: in process 0, where the rows of each process go; in the others none.
        own: ``(num, ...)`` rows of this process.
        most: rows of the process that has the most.
    """
    for start in range(0, most, BLOCK):
        block = own.new_zeros(min(BLOCK, most - start), *own.shape[1:])
        rows = own[start : start + BLOCK]
        block[: len(rows)] = rows
        parts = [torch.empty_like(block) for _ in places] or None
        dist.gather(block, parts)
        for place, part in zip(places, parts or (), strict=True):
            left = place[start : start + BLOCK]
            left.copy_(part[: len(left)])


def all_gather(own: Tensor) -> Tensor:
    """``(world_size, ...)`` tensors of one shape, by process, without gradient."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.contiguous())
    return torch.stack(parts)


class Placeholder(nn.Module):
    """A trainable zero that checkpoints leave out: DDP fails if every parameter is ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """A scalar zero."""
        return 0 * self.number

    def _save_to_state_dict(self, *args: object) -> None:
        """Save nothing."""

    def _load_from_state_dict(self, *args: object) -> None:
        """Load nothing."""
