"""Tables whose rows are spread over the processes that train together: row ``r`` is with process ``r % world_size``.

A lookup asks the owners for the rows it needs, each distinct one once, and its gradients go back to them: what travels grows with
the batch, not with the table, and a row's optimizer state stands where the row does. All processes must look up equally often
and in the same order, but each as many ids as it likes, and none too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.distributed.collectives import sum_over_processes

SHARDING = ("none", "row")
BLOCK = 1 << 16  # rows that are drawn or gathered at a time


class Shard(NamedTuple):
    """Which rows of a table a process holds.

    Attributes:
        rank: of this process.
        world_size: number of processes.
        num_rows: of the whole table.
    """

    rank: int
    world_size: int
    num_rows: int

    @property
    def width(self) -> int:
        """The most rows that one process holds."""
        return -(-self.num_rows // self.world_size)

    @property
    def num_own(self) -> int:
        """Rows of this process."""
        return len(range(self.rank, self.num_rows, self.world_size))

    def own(self, whole: Tensor) -> Tensor:
        """``(num_rows, ...)`` to the rows of this process, ``(num_own, ...)``."""
        return whole[self.rank :: self.world_size]


_place = (0, 1)  # rank and number of the processes that a model is built for


@contextmanager
def built_for(rank: int, world_size: int) -> Iterator[None]:
    """Inside, tables to be sharded get the rows of process ``rank`` alone. Models are built before processes are connected."""
    global _place
    before, _place = _place, (rank, world_size)
    try:
        yield
    finally:
        _place = before


def new_shard(num_rows: int) -> Shard | None:
    """The place of a table that is being built; None where one process holds all rows."""
    rank, world_size = _place
    return Shard(rank, world_size, num_rows) if world_size > 1 else None


def shard_of(parameter: Tensor) -> Shard | None:
    """None for a parameter that each process holds as a whole."""
    return getattr(parameter, "shard", None)


def num_rows(parameter: Tensor) -> int:
    """Rows of the whole table."""
    shard = shard_of(parameter)
    return len(parameter) if shard is None else shard.num_rows


@torch.no_grad()
def draw(weight: Tensor, std: float) -> None:
    """Fill with normal numbers; the rows of a shard are those that the whole table would have, which is never held."""
    shard = shard_of(weight)
    if shard is None:
        nn.init.normal_(weight, std=std)
        return
    end = shard.num_rows
    starts = [
        *range(0, max(1, end - 16), BLOCK),
        end,
    ]  # torch draws 16 numbers at a time: a smaller rest would be others
    for start, stop in zip(starts, starts[1:], strict=False):
        block = torch.empty(stop - start, *weight.shape[1:], dtype=weight.dtype).normal_(std=std)
        skip = (shard.rank - start) % shard.world_size  # to the first row of ours
        own = block[skip :: shard.world_size]
        first = (start + skip) // shard.world_size
        weight[first : first + len(own)] = own


def fetch(index: Tensor, weight: Tensor, padded: bool = False) -> tuple[Tensor, Tensor]:
    """What to look up in which rows: the table as it is, or of a sharded one the rows that ``index`` needs, wherever they are.

    Args:
        index: ``(...)`` ids.
        weight: ``(num_rows, dim)``, or this process's share of it.
        padded: 0 is no id: it is not asked for, and stays 0, a row of zeros.

    Returns:
        ``(...)`` and ``(num, dim)``. Gradients of the rows flow to their owners, summed and divided by the number of processes,
        as DDP's are; they are sparse there if the optimizer has asked for it.
    """
    shard = shard_of(weight)
    if shard is None:
        return index, weight
    ids = (index[index > 0] if padded else index.flatten()).long()
    place, row = torch.unique(
        ids % shard.world_size * shard.width + ids // shard.world_size, return_inverse=True
    )
    asked = torch.bincount(
        place // shard.width, minlength=shard.world_size
    )  # (world_size,) of each owner
    served = torch.empty_like(asked)
    dist.all_to_all_single(served, asked)
    take, give = asked.tolist(), served.tolist()
    own = F.embedding(
        _exchange(place % shard.width, take, give),
        weight,
        sparse=getattr(weight, "row_sparse", False),
    )
    rows = _Exchange.apply(own, give, take)  # (num_distinct, dim)
    if not padded:
        return row.view(index.shape), rows
    places = torch.zeros_like(index, dtype=torch.long)
    places[index > 0] = row + 1
    return places, torch.cat([rows.new_zeros(1, rows.shape[1]), rows])


def mean_row(weight: Tensor) -> Tensor:
    """``(dim,)`` mean of all rows but the first, which stands for unknown ids. Of a sharded table all processes must ask."""
    shard = shard_of(weight)
    if shard is None:
        return weight[1:].mean(0)
    return sum_over_processes(weight[int(shard.rank == 0) :].sum(0)) / (shard.num_rows - 1)


def gather_rows(own: Tensor, shard: Shard) -> Tensor:
    """The rows of all processes in the first one's main memory, block by block; the others get an empty tensor."""
    is_first = shard.rank == 0
    whole = torch.empty(shard.num_rows if is_first else 0, *own.shape[1:], dtype=own.dtype)
    for start in range(0, shard.width, BLOCK):
        block = own.new_zeros(min(BLOCK, shard.width - start), *own.shape[1:])
        rows = own[start : start + BLOCK]
        block[: len(rows)] = rows
        parts = [torch.empty_like(block) for _ in range(shard.world_size)] if is_first else None
        dist.gather(block, parts)
        for rank, part in enumerate(parts or ()):
            place = whole[rank :: shard.world_size][start : start + BLOCK]
            place.copy_(part[: len(place)])
    return whole


class _Exchange(torch.autograd.Function):
    """Rows to the processes that asked for them; back come their gradients, of which the mean over processes is taken."""

    @staticmethod
    def forward(ctx: object, rows: Tensor, give: list[int], take: list[int]) -> Tensor:
        ctx.give, ctx.take = give, take  # type: ignore[attr-defined]
        return _exchange(rows, give, take)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None]:
        give, take = ctx.give, ctx.take  # type: ignore[attr-defined]
        return _exchange(gradient, take, give) / len(give), None, None


def _exchange(rows: Tensor, give: list[int], take: list[int]) -> Tensor:
    """``(sum(give), ...)``, the first ``give[0]`` rows for process 0 and so on, to ``(sum(take), ...)`` from each in turn."""
    got = rows.new_empty(sum(take), *rows.shape[1:])
    dist.all_to_all_single(got, rows.contiguous(), take, give)
    return got
