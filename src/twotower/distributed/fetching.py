"""Lookups in tables that are spread over processes: all tables of a step in one exchange.

A step first says which ids it needs of each table, then the rows of all tables travel together,
each distinct row once, then the layers take their rows. Gradients return the same way. So a step
has four exchanges between processes (numbers of rows, ids, rows, gradients), however many tables
and features there are. A lookup that was not announced makes an exchange of its own.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from twotower.distributed.sharding import Shard, shard_of


class Request(NamedTuple):
    """Ids that a step will look up.

    Attributes:
        weight: the table, or this process's part of it.
        ids: ``(...)``.
        padded: id 0 is padding, whose row is not needed.
    """

    weight: Tensor
    ids: Tensor
    padded: bool = False


class _Fetched(NamedTuple):
    """Rows of one table.

    Attributes:
        place: ``(num_distinct,)`` ascending, see :func:`_place`.
        rows: ``(num_distinct, dim)``.
    """

    place: Tensor
    rows: Tensor


_announced: dict[int, _Fetched] = {}  # rows that layers take now, by the identity of the table


@contextmanager
def fetched_together(requests: Iterable[Request]) -> Iterator[None]:
    """Context in which lookups of the requested ids in sharded tables exchange nothing.

    All processes must enter it with the same tables, with any number of ids each. Within another
    such context it does nothing for the tables of that one. Request no row that is not looked up:
    it would be one of the step for a row-sparse optimizer.
    """
    tables: dict[int, tuple[Tensor, list[Tensor]]] = {}
    for weight, index, padded in requests:
        if shard_of(weight) is not None and id(weight) not in _announced:
            ids = index[index > 0] if padded else index.flatten()
            tables.setdefault(id(weight), (weight, []))[1].append(ids)
    if tables:
        weights = [weight for weight, _ in tables.values()]
        fetched = _fetch(weights, [torch.cat(ids) for _, ids in tables.values()])
        _announced.update(zip(tables, fetched, strict=True))
    try:
        yield
    finally:
        for key in tables:
            del _announced[key]


def fetch(index: Tensor, weight: Tensor, padded: bool = False) -> tuple[Tensor, Tensor]:
    """Indices and rows for a lookup: of a sharded table, the needed rows from all processes.

    Args:
        index: ``(...)`` ids.
        weight: ``(num_rows, dim)``, or this process's part of it.
        padded: id 0 is padding: it is not requested, and stays 0, a row of zeros.

    Returns:
        ``(...)`` indices and the ``(num, dim)`` rows that they refer to; without sharding the
        arguments. Gradients of the rows flow to their owners, summed and divided by the number of
        processes, as in DDP; they are sparse if the optimizer wants it.

    Raises:
        RuntimeError: for ids that :func:`fetched_together` was not told of.
    """
    shard = shard_of(weight)
    if shard is None:
        return index, weight
    ids = index[index > 0] if padded else index.flatten()
    found = _announced.get(id(weight)) or _fetch([weight], [ids])[0]
    place = _place(ids, shard)
    row = torch.searchsorted(found.place, place)
    # a search past the end finds no row either
    if len(row) and not torch.equal(found.place[row.clamp_max(len(found.place) - 1)], place):
        raise RuntimeError("a lookup in a sharded table needs ids that were not requested")
    if not padded:
        return row.view(index.shape), found.rows
    places = torch.zeros_like(index, dtype=torch.long)
    places[index > 0] = row + 1
    return places, torch.cat([found.rows.new_zeros(1, found.rows.shape[1]), found.rows])


def _place(ids: Tensor, shard: Shard) -> Tensor:
    """Owner and the owner's row as one number, so that distinct ids are sorted by owner."""
    ids = ids.long()
    return ids % shard.world_size * shard.width + ids // shard.world_size


def _fetch(weights: list[Tensor], ids: list[Tensor]) -> list[_Fetched]:
    """The rows of ``(num,)`` ids of each sharded table, in one exchange.

    Raises:
        ValueError: for tables of different number types.
    """
    shards = [shard for weight in weights if (shard := shard_of(weight)) is not None]
    world_size = shards[0].world_size
    if len({weight.dtype for weight in weights}) > 1:
        raise ValueError("sharded tables must have one number type")
    places, asked = [], []
    for own, shard in zip(ids, shards, strict=True):
        places.append(torch.unique(_place(own, shard)))  # (num_distinct,), ascending
        owner = places[-1] // shard.width
        asked.append(torch.bincount(owner, minlength=world_size))
    requested = torch.stack(asked, 1)  # (world_size, num_tables)
    served = torch.empty_like(requested)
    dist.all_to_all_single(served, requested)
    take, give = requested.tolist(), served.tolist()
    own_rows = [place % shard.width for place, shard in zip(places, shards, strict=True)]
    wanted = _split(_exchange(_joined(own_rows, take), _sums(take), _sums(give)), give)
    rows = [
        F.embedding(own, weight, sparse=getattr(weight, "row_sparse", False))
        for own, weight in zip(wanted, weights, strict=True)
    ]
    widths = [weight.shape[1] for weight in weights]
    sent, received = _numbers(give, widths), _numbers(take, widths)
    flat = [own.flatten() for own in rows]
    numbers = _Exchange.apply(_joined(flat, sent), _sums(sent), _sums(received))
    found = _split(numbers, received)
    return [
        _Fetched(place, own.view(-1, width))
        for place, own, width in zip(places, found, widths, strict=True)
    ]


def _numbers(counts: list[list[int]], widths: list[int]) -> list[list[int]]:
    """Rows of each table as numbers, for each process."""
    return [[n * width for n, width in zip(row, widths, strict=True)] for row in counts]


def _sums(counts: list[list[int]]) -> list[int]:
    return [sum(row) for row in counts]


def _joined(tables: list[Tensor], counts: list[list[int]]) -> Tensor:
    """``(sum,)`` parts of each table for the first process, then those for the second, and so on.

    Args:
        tables: ``(num,)`` each, sorted by process.
        counts: for each process, how many of each table.
    """
    of_table = zip(*counts, strict=True)  # for each table, how many of each process
    by_table = [list(own.split(n)) for own, n in zip(tables, of_table, strict=True)]
    return torch.cat([part for parts in zip(*by_table, strict=True) for part in parts])


def _split(joined: Tensor, counts: list[list[int]]) -> list[Tensor]:
    """The inverse of :func:`_joined`: ``(num,)`` of each table."""
    parts = joined.split([n for row in counts for n in row])
    num_tables = len(counts[0])
    return [torch.cat(parts[table::num_tables]) for table in range(num_tables)]


class _Exchange(torch.autograd.Function):
    """Sends rows to the processes that need them; gradients return as a mean over processes."""

    @staticmethod
    def forward(ctx: object, rows: Tensor, give: list[int], take: list[int]) -> Tensor:
        ctx.give, ctx.take = give, take  # type: ignore[attr-defined]
        return _exchange(rows, give, take)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None]:
        give, take = ctx.give, ctx.take  # type: ignore[attr-defined]
        return _exchange(gradient, take, give) / len(give), None, None


def _exchange(rows: Tensor, give: list[int], take: list[int]) -> Tensor:
    """Exchange numbers between all processes.

    Args:
        rows: ``(sum(give),)``, the first ``give[0]`` numbers for process 0, and so on.
        give: numbers for each process.
        take: numbers from each process.

    Returns:
        ``(sum(take),)``, in the order of the processes.
    """
    received = rows.new_empty(sum(take))
    dist.all_to_all_single(received, rows.contiguous(), take, give)
    return received
