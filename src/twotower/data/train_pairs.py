"""The (user, item) pairs of the training part: what samplers may ask about them."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Distribution(NamedTuple):
    """Items in proportion to a power of their training counts.

    Attributes:
        cumulative: ``(num_items,)`` sums of the probabilities, in float64.
        log_q: ``(num_items,)`` their logarithms.
    """

    cumulative: Tensor
    log_q: Tensor


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

    def contain(self, user: Tensor, item: Tensor) -> Tensor:
        """Is ``(user, item)`` a training pair? Both broadcast; so does the answer."""
        key = user * self.num_items + item
        place = torch.searchsorted(self.keys, key).clamp_max(len(self.keys) - 1)
        return self.keys[place] == key

    def mask(self, user: Tensor, item: Tensor) -> Tensor:
        """``(batch,)`` users and ``(num_distinct,)`` ascending items to ``(batch, num_distinct)``: the training pairs.

        It walks through each user's own items, not through the table: users have few.
        """
        first = torch.searchsorted(self.keys, user * self.num_items)
        count = torch.searchsorted(self.keys, (user + 1) * self.num_items) - first  # (batch,)
        row = torch.repeat_interleave(torch.arange(len(user), device=user.device), count)  # (num_pairs,)
        place = torch.arange(len(row), device=user.device) - (count.cumsum(0) - count)[row]
        own = self.keys[first[row] + place] % self.num_items  # (num_pairs,)
        column = torch.searchsorted(item, own).clamp_max(len(item) - 1)
        found = item[column] == own
        mask = torch.zeros(len(user), len(item), dtype=torch.bool, device=user.device)
        mask[row[found], column[found]] = True
        return mask
