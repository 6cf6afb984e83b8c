"""Lookups in two phases: a step says which ids it needs of each table, then takes their rows.

The rows of all tables that are spread over processes travel together, each distinct row once, and
gradients return the same way. So a step has four exchanges between processes (numbers of rows, ids,
rows, gradients), however many tables and features there are. A lookup that was not announced makes
an exchange of its own.

Tables of a row-sparse optimizer are read once a step as well, each distinct row once: so their
gradient has no repeated rows to add up.

Tables that TorchRec trains (:mod:`~twotower.distributed.torchrec_tables`) are looked up by it in a
training step, once each, and by the exchange above where no gradient is needed.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from twotower.distributed.sharding import Shard, shard_of
from twotower.distributed.torchrec_tables import torchrec_of


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
        known: ids as they were requested, and the row of each, without padding; by their identity
            and whether they are padded.
    """

    place: Tensor
    rows: Tensor
    known: dict[tuple[int, bool], tuple[Tensor, Tensor]]


_announced: dict[int, _Fetched] = {}  # rows that layers take now, by the identity of the table


@contextmanager
def fetched_together(requests: Iterable[Request]) -> Iterator[None]:
    """Context in which lookups of the requested ids exchange and read nothing.

    All processes must enter it with the same tables, with any number of ids each. Within another
    such context it does nothing for the tables of that one. Request no row that is not looked up:
    it would be one of the step for a row-sparse optimizer.
    """
    tables: dict[int, list[Request]] = {}
    for request in requests:
        if _is_fetched(request.weight) and id(request.weight) not in _announced:
            tables.setdefault(id(request.weight), []).append(request)
    if tables:
        _announced.update(zip(tables, _fetch(list(tables.values())), strict=True))
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
        ``(...)`` indices and the ``(num, dim)`` rows that they refer to; of a whole table that was
        not announced the arguments. Gradients of the rows flow to their owners, summed and divided
        by the number of processes, as in DDP; they are sparse if the optimizer wants it.

    Raises:
        RuntimeError: for ids that :func:`fetched_together` was not told of.
    """
    found = _announced.get(id(weight))
    if found is None and shard_of(weight) is None:
        return index, weight
    if found is None:
        found = _fetch([[Request(weight, index, padded)]])[0]
    key = (id(index), padded)
    row = found.known[key][1] if key in found.known else _search(found, index, weight, padded)
    if not padded:
        return row.view(index.shape), found.rows
    places = torch.zeros_like(index, dtype=torch.long)
    places[index > 0] = row + 1
    return places, torch.cat([found.rows.new_zeros(1, found.rows.shape[1]), found.rows])


def _is_fetched(weight: Tensor) -> bool:
    """Is a table read once a step? One that each process has whole only where that is faster."""
    if shard_of(weight) is not None:
        return True
    is_row_sparse: bool = getattr(weight, "row_sparse", False)
    return is_row_sparse and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _search(found: _Fetched, index: Tensor, weight: Tensor, padded: bool) -> Tensor:
    """The rows of ids that were requested by another tensor."""
    place = _place(_flat(index, padded), shard_of(weight))
    row = torch.searchsorted(found.place, place)
    last = len(found.place) - 1
    # a search past the end finds no row either
    if len(row) and (last < 0 or not torch.equal(found.place[row.clamp_max(last)], place)):
        raise RuntimeError("a lookup in a table needs ids that were not requested")
    return row


def _flat(index: Tensor, padded: bool) -> Tensor:
    return index[index > 0] if padded else index.flatten()


def _place(ids: Tensor, shard: Shard | None) -> Tensor:
    """The id; of a sharded table owner and row there as one number, so sorted by owner.

    Raises:
        IndexError: for an id that a sharded table has no row for: the exchange gives another row.
    """
    ids = ids.long()
    if shard is None:
        return ids
    if len(ids):
        least, most = (int(end) for end in ids.aminmax())
        if least < 0 or most >= shard.num_rows:
            raise IndexError(f"ids from {least} to {most} in a table of {shard.num_rows} rows")
    return shard.place(ids)


def _fetch(tables: list[list[Request]]) -> list[_Fetched]:
    """The rows that are requested of each table; those of sharded ones in one exchange."""
    weights, places, known = [], [], []
    for requests in tables:
        weight = requests[0].weight
        flat = [_flat(request.ids, request.padded) for request in requests]
        place, row = torch.unique(_place(torch.cat(flat), shard_of(weight)), return_inverse=True)
        weights.append(weight)
        places.append(place)
        parts = row.split([len(ids) for ids in flat])
        known.append(
            {
                (id(own.ids), own.padded): (own.ids, part)
                for own, part in zip(requests, parts, strict=True)
            }
        )
    return [_Fetched(*each) for each in zip(places, _read(weights, places), known, strict=True)]


def _read(weights: list[Tensor], places: list[Tensor]) -> list[Tensor]:
    """``(num_distinct, dim)`` rows at the places of each table."""
    rows = list(places)
    exchanged, trained = [], []  # numbers of the tables
    for number, weight in enumerate(weights):
        if torchrec_of(weight) is not None and torch.is_grad_enabled():
            trained.append(number)
        elif shard_of(weight) is not None:
            exchanged.append(number)
        else:
            rows[number] = _rows(weight, places[number])
    for numbers, read in ((exchanged, _exchange_rows), (trained, _look_up)):
        if numbers:
            found = read([weights[each] for each in numbers], [places[each] for each in numbers])
            for number, own in zip(numbers, found, strict=True):
                rows[number] = own
    return rows


def _look_up(weights: list[Tensor], places: list[Tensor]) -> list[Tensor]:
    """The same of tables that TorchRec trains."""
    tables = torchrec_of(weights[0])
    assert tables is not None
    return tables.look_up(weights, places)


def _rows(weight: Tensor, index: Tensor) -> Tensor:
    return F.embedding(index, weight, sparse=getattr(weight, "row_sparse", False))


def _exchange_rows(weights: list[Tensor], places: list[Tensor]) -> list[Tensor]:
    """``(num_distinct, dim)`` rows at the places of each sharded table, from their owners.

    Raises:
        ValueError: for tables of different number types.
    """
    shards = [shard for weight in weights if (shard := shard_of(weight)) is not None]
    world_size = shards[0].world_size
    if len({weight.dtype for weight in weights}) > 1:
        raise ValueError("sharded tables must have one number type")
    asked = [
        torch.bincount(place // shard.width, minlength=world_size)
        for place, shard in zip(places, shards, strict=True)
    ]
    requested = torch.stack(asked, 1)  # (world_size, num_tables)
    served = torch.empty_like(requested)
    dist.all_to_all_single(served, requested)
    take, give = requested.tolist(), served.tolist()
    own_rows = [place % shard.width for place, shard in zip(places, shards, strict=True)]
    wanted = _split(_exchange(_joined(own_rows, take), _sums(take), _sums(give)), give)
    flat = [_rows(weight, own).flatten() for own, weight in zip(wanted, weights, strict=True)]
    widths = [weight.shape[1] for weight in weights]
    sent, received = _numbers(give, widths), _numbers(take, widths)
    numbers = _Exchange.apply(_joined(flat, sent), _sums(sent), _sums(received))
    found = _split(numbers, received)
    return [own.view(-1, width) for own, width in zip(found, widths, strict=True)]


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
