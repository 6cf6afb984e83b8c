"""The (user, item) pairs of the training part: what samplers may ask about them."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from twotower.data.batches.rows import items_from

CHUNK = 1 << 22  # interactions that are counted at a time


class Distribution(NamedTuple):
    """Items in proportion to a power of their training counts.

    Attributes:
        cumulative: ``(num_items,)`` sums of the probabilities, in float64.
        log_q: ``(num_items,)`` their logarithms.
    """

    cumulative: Tensor
    log_q: Tensor


class PairKeys(NamedTuple):
    """Training pairs as numbers that can be searched.

    Attributes:
        sorted: ``(num_pairs,)`` ascending ``user * num_items + item``.
        num_items: items of the training part.
    """

    sorted: Tensor
    num_items: int

    def contain(self, user: Tensor, item: Tensor) -> Tensor:
        """Is ``(user, item)`` a training pair? Both broadcast; so does the answer."""
        key = user * self.num_items + item
        place = torch.searchsorted(self.sorted, key).clamp_max(len(self.sorted) - 1)
        return self.sorted[place] == key

    def mask(self, user: Tensor, item: Tensor) -> Tensor:
        """``(batch,)`` users and ``(num_distinct,)`` ascending items to ``(batch, num_distinct)``: the training pairs.

        It walks through each user's own items, not through the table: users have few.
        """
        first = torch.searchsorted(self.sorted, user * self.num_items)
        count = torch.searchsorted(self.sorted, (user + 1) * self.num_items) - first  # (batch,)
        row = torch.repeat_interleave(
            torch.arange(len(user), device=user.device), count
        )  # (num_pairs,)
        place = torch.arange(len(row), device=user.device) - (count.cumsum(0) - count)[row]
        own = self.sorted[first[row] + place] % self.num_items  # (num_pairs,)
        column = torch.searchsorted(item, own).clamp_max(len(item) - 1)
        found = item[column] == own
        mask = torch.zeros(len(user), len(item), dtype=torch.bool, device=user.device)
        mask[row[found], column[found]] = True
        return mask


class TrainPairs:
    """All training interactions, on one device. Rows are read, counts and keys made, when first asked for.

    Args:
        rows: gives ``(num_interactions,)`` user indices, and item indices, all below ``num_items``.
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
        """The pairs of some users, and maybe of others: what may be asked about those users."""
        return PairKeys(self.keys, self.num_items)

    def contain(self, user: Tensor, item: Tensor) -> Tensor:
        """See :meth:`PairKeys.contain`."""
        return self.of(user).contain(user, item)

    def mask(self, user: Tensor, item: Tensor) -> Tensor:
        """See :meth:`PairKeys.mask`."""
        return self.of(user).mask(user, item)


class MappedPairs(TrainPairs):
    """The same for data beyond memory: nothing is made that grows with the interactions.

    Args:
        rows: see :class:`TrainPairs`; counts and keys do without them.
        num_items: items of the training part.
        tables: with ``position/train``, ``offset`` and ``interactions/item``, on the host.
        device: where counts and keys are wanted.
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
            count += torch.bincount(
                self.tables["interactions/item"][position], minlength=self.num_items
            )
        return count.clamp_min(1).to(self.device)

    def of(self, user: Tensor) -> PairKeys:
        """The pairs of these users alone. A user's interactions stand together, those of training first."""
        user = user.unique().to(self.tables["offset"].device)  # (num_users,) ascending
        start, end = (self.tables["offset"][user + more] for more in (0, 1))
        position = self.tables["position/train"]
        count = torch.searchsorted(position, end.to(position.dtype)) - torch.searchsorted(
            position, start.to(position.dtype)
        )
        row, item = items_from(self.tables, start, count)
        return PairKeys(
            (user[row] * self.num_items + item).sort().values.to(self.device), self.num_items
        )
