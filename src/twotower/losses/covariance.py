"""Covariance matrices of the item vectors of each category, without a loop over categories."""

from typing import NamedTuple

import torch
from torch import Tensor

TILE = 32


class CategoryCovariance(NamedTuple):
    """The categories that occur among some items, in ascending order; places that are left over have ``n = 0``.

    Attributes:
        covariance: ``(num_groups, dim, dim)``, zero where ``n`` is too small to divide by.
        n: ``(num_groups,)`` items, each counted by its weight.
        category: ``(num_groups,)``; ``num_categories`` marks the places left over.
    """

    covariance: Tensor
    n: Tensor
    category: Tensor


def category_covariance(
    item: Tensor, category: Tensor, weight: Tensor, num_categories: int, unbiased: bool = True
) -> CategoryCovariance:
    """Covariance matrix of the item vectors of each category that occurs.

    Items cannot be of more categories than there are items, nor than the data have: the smaller number is the number of groups,
    so it is known in advance and memory is bounded by both, whatever the data.

    Args:
        item: ``(num_distinct, dim)``.
        category: ``(num_distinct,)``, -1 is left out.
        weight: ``(num_distinct,)`` how often each item counts.
        num_categories: number of categories in the data.
        unbiased: divide by ``n - 1``, not ``n``.
    """
    bin_ = torch.where(
        category < 0, num_categories, category
    )  # the last bin takes the missing ones
    weight = weight.to(item.dtype)
    num_groups = min(num_categories + 1, len(item))
    present = torch.zeros(num_categories + 1, dtype=torch.long, device=item.device).index_fill(
        0, bin_, 1
    )
    group = (present.cumsum(0) - 1).index_select(0, bin_)  # (num_distinct,)
    category_of_group = (
        torch.full_like(bin_[:1], num_categories).repeat(num_groups).scatter(0, group, bin_)
    )
    n = item.new_zeros(num_groups).index_add(0, group, weight)
    total = item.new_zeros(num_groups, item.shape[1]).index_add(0, group, weight[:, None] * item)
    mean = total / n.clamp_min(1)[:, None]
    centred = item - mean.index_select(0, group)  # (num_distinct, dim)
    scatter = _sum_of_outer_products(weight.sqrt()[:, None] * centred, group, num_groups)
    divisor = (n - 1 if unbiased else n).clamp_min(1)
    return CategoryCovariance(
        scatter / divisor[:, None, None],
        n * (category_of_group < num_categories),
        category_of_group,
    )


def _sum_of_outer_products(rows: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """``Σ x xᵀ`` over the rows of each group: ``(num_rows, dim)`` to ``(num_groups, dim, dim)``.

    The rows are sorted by group into tiles of ``TILE`` rows, none shared by two groups, padded with zeros. One batched
    product over the tiles then costs what the rows cost, however many groups there are, and shapes are known in advance.
    """
    num_rows, dim = rows.shape
    order = group.argsort(stable=True)
    sorted_group = group[order]
    size = torch.zeros(num_groups, dtype=torch.long, device=rows.device).index_add(
        0, group, torch.ones_like(group)
    )
    tiles = (size + TILE - 1) // TILE
    last_tile, last_row = tiles.cumsum(0), size.cumsum(0)
    place = (
        torch.arange(num_rows, device=rows.device)
        + ((last_tile - tiles) * TILE - (last_row - size))[sorted_group]
    )
    num_tiles = num_rows // TILE + num_groups
    padded = (
        rows.new_zeros(num_tiles * TILE, dim)
        .index_copy(0, place, rows[order])
        .view(num_tiles, TILE, dim)
    )
    tile = torch.arange(num_tiles, device=rows.device)
    group_of_tile = torch.searchsorted(last_tile, tile, right=True).clamp_max(num_groups - 1)
    return rows.new_zeros(num_groups, dim, dim).index_add(0, group_of_tile, padded.mT @ padded)
