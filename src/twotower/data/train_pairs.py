"""The (user, item) pairs of the training part: what samplers may ask about them."""

from functools import cached_property

import torch
from torch import Tensor


class TrainPairs:
    """All training interactions, on one device. Counts and keys are made when first asked for.

    Args:
        user: ``(num_interactions,)`` user indices.
        item: ``(num_interactions,)`` item indices, all below ``num_items``.
        num_items: items of the training part.
    """

    def __init__(self, user: Tensor, item: Tensor, num_items: int) -> None:
        self.user = user
        self.item = item
        self.num_items = num_items
        self._shares: dict[float, Tensor] = {}

    @cached_property
    def item_count(self) -> Tensor:
        """``(num_items,)`` training interactions of each item, at least 1."""
        return torch.bincount(self.item, minlength=self.num_items).clamp_min(1)

    @cached_property
    def keys(self) -> Tensor:
        """``(num_interactions,)`` sorted ``user * num_items + item``."""
        return (self.user.long() * self.num_items + self.item).sort().values

    def share(self, power: float) -> Tensor:
        """``(num_items,)`` probabilities in proportion to ``item_count ** power``, in float64."""
        if power not in self._shares:
            weight = self.item_count.double() ** power
            self._shares[power] = weight / weight.sum()
        return self._shares[power]

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
