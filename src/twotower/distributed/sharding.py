"""Tables with rows spread over processes: in turn, or in blocks where TorchRec trains them.

A lookup requests each distinct row once from its owner, and gradients go back to the owner
(:mod:`~twotower.distributed.fetching`). So the communication depends on the batch, not on the
table, and the owner also keeps the row's optimizer state. All processes must make the same lookups
in the same order, with any number of ids each, possibly none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from twotower.distributed.collectives import gather_into, sum_over_processes

SHARDING = ("none", "row", "torchrec")
BLOCK = 1 << 16  # rows drawn at a time


class Shard(NamedTuple):
    """The part of a table that a process holds: row ``r`` is of process ``r % world_size``.

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
        """Largest number of rows in one process."""
        return -(-self.num_rows // self.world_size)

    @property
    def num_own(self) -> int:
        """Rows of this process."""
        return len(range(self.rank, self.num_rows, self.world_size))

    def own(self, whole: Tensor) -> Tensor:
        """``(num_rows, ...)`` to the rows of this process, ``(num_own, ...)``."""
        return whole[self.rank :: self.world_size]

    def place(self, ids: Tensor) -> Tensor:
        """Owner and row there of each id as one number, ``owner * width + row``."""
        return ids % self.world_size * self.width + ids // self.world_size

    def within(self, start: int, stop: int) -> tuple[slice, int]:
        """Own rows among ``start`` to ``stop``, and the place of the first one among the own."""
        skip = (self.rank - start) % self.world_size
        return slice(skip, None, self.world_size), (start + skip) // self.world_size


class Block(Shard):
    """A shard of neighbouring rows, as in TorchRec: row ``r`` is of process ``r // width``."""

    @property
    def first(self) -> int:
        """The first own row, ``num_rows`` if there is none."""
        return min(self.rank * self.width, self.num_rows)

    @property
    def num_own(self) -> int:
        """Rows of this process."""
        return min(self.width, self.num_rows - self.first)

    def own(self, whole: Tensor) -> Tensor:
        """``(num_rows, ...)`` to the rows of this process, ``(num_own, ...)``."""
        return whole[self.first : self.first + self.num_own]

    def place(self, ids: Tensor) -> Tensor:
        """Owner and row there of each id as one number, which is the id."""
        return ids

    def within(self, start: int, stop: int) -> tuple[slice, int]:
        """Own rows among ``start`` to ``stop``, and the place of the first one among the own."""
        low = min(max(start, self.first), stop)
        high = max(low, min(stop, self.first + self.num_own))
        return slice(low - start, high - start), max(low - self.first, 0)

    def chunks(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """The own rows, at most ``size`` at a time; as many chunks as in all other processes."""
        rows = torch.arange(self.first, self.first + self.num_own, device=device)
        for start in range(0, self.width, size):
            yield rows[start : start + size]


_place = (0, 1)  # rank and number of processes for models that are being built


@contextmanager
def built_for(rank: int, world_size: int) -> Iterator[None]:
    """Context in which new sharded tables get only the rows of process ``rank``.

    Models are built before the processes are connected, so torch does not know the rank yet.
    """
    global _place
    before, _place = _place, (rank, world_size)
    try:
        yield
    finally:
        _place = before


def new_shard(num_rows: int, sharding: str) -> Shard | None:
    """The shard of a new table; None if each process holds all of it, or there is only one."""
    rank, world_size = _place
    if sharding == "none" or world_size == 1:
        return None
    kind = Block if sharding == "torchrec" else Shard
    return kind(rank, world_size, num_rows)


def shard_of(parameter: Tensor) -> Shard | None:
    """The shard of a parameter; None if each process holds all of it."""
    return getattr(parameter, "shard", None)


def num_rows(parameter: Tensor) -> int:
    """Rows of the whole table."""
    shard = shard_of(parameter)
    return len(parameter) if shard is None else shard.num_rows


@torch.no_grad()
def draw(weight: Tensor, std: float) -> None:
    """Fill with normal random numbers; a shard gets the same rows as in the whole table.

    The whole table is never in memory.
    """
    shard = shard_of(weight)
    if shard is None:
        nn.init.normal_(weight, std=std)
        return
    # torch draws 16 numbers at a time: a last block of fewer rows would get other numbers, so it is
    # part of the block before it.
    end = shard.num_rows
    starts = [*range(0, max(1, end - 16), BLOCK), end]
    for start, stop in zip(starts, starts[1:], strict=False):
        block = torch.empty(stop - start, *weight.shape[1:], dtype=weight.dtype).normal_(std=std)
        part, first = shard.within(start, stop)
        own = block[part]
        weight[first : first + len(own)] = own


def mean_row(weight: Tensor) -> Tensor:
    """``(dim,)`` mean of all rows except row 0, which is for unknown ids.

    For a sharded table all processes must call it.
    """
    shard = shard_of(weight)
    if shard is None:
        return weight[1:].mean(0)
    first = 1 if shard.rank == 0 else 0  # process 0 holds row 0
    return sum_over_processes(weight[first:].sum(0)) / (shard.num_rows - 1)


def gather_rows(own: Tensor, shard: Shard) -> Tensor:
    """All rows of a sharded table in process 0's main memory; an empty tensor in the others.

    It works block by block, so the device holds no second copy of the table.
    """
    is_first = shard.rank == 0
    whole = torch.empty(shard.num_rows if is_first else 0, *own.shape[1:], dtype=own.dtype)
    ranks = range(shard.world_size) if is_first else ()
    places = [shard._replace(rank=rank).own(whole) for rank in ranks]
    gather_into(places, own, shard.width)
    return whole
