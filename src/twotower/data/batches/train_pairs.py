"""The (user, item) pairs of training: membership, item counts, distributions."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from twotower.data.batches.rows import items_from, repeated, train_rows

CHUNK = 1 << 22  # interactions counted at a time


class Distribution(NamedTuple):
    """Items in proportion to a power of their training counts.

    Attributes:
        cumulative: ``(num_items,)`` sums of the probabilities, in float64.
        log_q: ``(num_items,)`` their logarithms.
    """

    cumulative: Tensor
    log_q: Tensor


class PairKeys(NamedTuple):
    """Training pairs as sorted numbers, for binary search.

    Attributes:
        sorted: ``(num_pairs,)`` ascending ``user * num_items + item``.
        num_items: items of the training part.
    """

    sorted: Tensor
    num_items: int

    def contain(self, user: Tensor, item: Tensor) -> Tensor:
        """True where ``(user, item)`` is a training pair; the two are broadcast."""
        key = user * self.num_items + item
        place = torch.searchsorted(self.sorted, key).clamp_max(len(self.sorted) - 1)
        return self.sorted[place] == key

    def pairs(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """``(num_pairs,)`` rows of ``user`` ``(batch,)``, ascending, and their training items."""
        first = torch.searchsorted(self.sorted, user * self.num_items)
        count = torch.searchsorted(self.sorted, (user + 1) * self.num_items) - first  # (batch,)
        row, place = repeated(count)  # (num_pairs,)
        return row, self.sorted[first[row] + place] % self.num_items

    def mask(self, user: Tensor, item: Tensor, fixed_shapes: bool = False) -> Tensor:
        """``(batch, num_distinct)``, True for training pairs.

        It visits the users' own items, which are few, rather than all cells.

        Args:
            user: ``(batch,)``.
            item: ``(num_distinct,)``, ascending.
            fixed_shapes: search all cells, as the number of the users' items is not known without
                waiting for the device. Items that are no training items are padding.
        """
        if fixed_shapes:
            return self.contain(user[:, None], item) & (item < self.num_items)
        row, own = self.pairs(user)
        column = torch.searchsorted(item, own).clamp_max(len(item) - 1)
        found = item[column] == own
        mask = torch.zeros(len(user), len(item), dtype=torch.bool, device=user.device)
        mask[row[found], column[found]] = True
        return mask


class TrainPairs:
    """All training interactions on one device, read when first needed.

    Args:
        rows: returns user and item indices, each ``(num_interactions,)``, items below
            ``num_items``.
        num_items: items of the training part.
    """

    def __init__(self, rows: Callable[[], tuple[Tensor, Tensor]], num_items: int) -> None:
        self.rows = rows
        self.num_items = num_items
        self._distributions: dict[float, Distribution] = {}

    @cached_property
    def item_count(self) -> Tensor:
        """``(num_items,)`` training interactions of each item, at least 1."""
        return torch.bincount(self.rows()[1], minlength=self.num_items).clamp_min(1)

    @cached_property
    def keys(self) -> Tensor:
        """``(num_interactions,)`` sorted ``user * num_items + item``."""
        user, item = self.rows()
        return (user.long() * self.num_items + item).sort().values

    def distribution(self, power: float) -> Distribution:
        """Probabilities in proportion to ``item_count ** power``."""
        if power not in self._distributions:
            weight = self.item_count.double() ** power
            share = weight / weight.sum()
            self._distributions[power] = Distribution(share.cumsum(0), share.log().float())
        return self._distributions[power]

    def of(self, user: Tensor) -> PairKeys:
        """Pairs to search for these users; may include those of other users."""
        return PairKeys(self.keys, self.num_items)

    def contain(self, user: Tensor, item: Tensor) -> Tensor:
        """See :meth:`PairKeys.contain`."""
        return self.of(user).contain(user, item)

    def mask(self, user: Tensor, item: Tensor, fixed_shapes: bool = False) -> Tensor:
        """See :meth:`PairKeys.mask`."""
        return self.of(user).mask(user, item, fixed_shapes)


class MappedPairs(TrainPairs):
    """The same for data larger than memory: nothing held grows with the interactions.

    Args:
        rows: see :class:`TrainPairs`; counts and keys do not use it.
        num_items: items of the training part.
        tables: with ``position/train``, ``offset`` and ``interactions/item``, on the host.
        device: of counts and keys.
    """

    def __init__(
        self,
        rows: Callable[[], tuple[Tensor, Tensor]],
        num_items: int,
        tables: dict[str, Tensor],
        device: torch.device,
    ) -> None:
        super().__init__(rows, num_items)
        self.tables = tables
        self.device = device

    @cached_property
    def item_count(self) -> Tensor:
        """``(num_items,)`` training interactions of each item, at least 1."""
        count = torch.zeros(self.num_items, dtype=torch.long)
        for position in self.tables["position/train"].split(CHUNK):
            item = self.tables["interactions/item"][position]
            count += torch.bincount(item, minlength=self.num_items)
        return count.clamp_min(1).to(self.device)

    def of(self, user: Tensor) -> PairKeys:
        """Pairs of these users only."""
        offset, position = self.tables["offset"], self.tables["position/train"]
        user = user.unique().to(offset.device)  # (num_users,) ascending
        start, end = offset[user], offset[user + 1]
        # A user's interactions are contiguous, those of training first.
        count = torch.searchsorted(position, end.to(position.dtype))
        count = count - torch.searchsorted(position, start.to(position.dtype))
        row, item = items_from(self.tables, start, count)
        keys = (user[row] * self.num_items + item).sort().values
        return PairKeys(keys.to(self.device), self.num_items)


def train_pairs(
    tables: dict[str, Tensor], num_items: int, device: torch.device, is_mapped: bool
) -> TrainPairs:
    """The training pairs of a data module's tables.

    Args:
        tables: of the data module.
        num_items: of the training part.
        device: where batches are built.
        is_mapped: tables that grow with interactions stay on the host.
    """
    rows = partial(train_rows, tables)
    return (
        MappedPairs(rows, num_items, tables, device) if is_mapped else TrainPairs(rows, num_items)
    )
