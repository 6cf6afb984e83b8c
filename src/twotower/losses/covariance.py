"""Covariance matrices of the item vectors of each category, without a loop over categories."""

from typing import NamedTuple

import torch
from torch import Tensor

from twotower.layers.batched import sum_rows

TILE = 32  # rows per tile of the batched product


class CategoryCovariance(NamedTuple):
    """Covariances of the categories that occur, ascending; unused places have ``n = 0``.

    Attributes:
        covariance: ``(num_groups, dim, dim)``, zero where ``n`` is too small to divide by.
        n: ``(num_groups,)`` sums of the items' weights.
        category: ``(num_groups,)``; ``num_categories`` in unused places.
    """

    covariance: Tensor
    n: Tensor
    category: Tensor


def category_covariance(
    item: Tensor, category: Tensor, weight: Tensor, num_categories: int, unbiased: bool = True
) -> CategoryCovariance:
    """Covariance matrix of the item vectors of each category that occurs.

    There are as many groups as items, or as categories of the data if those are fewer. So shapes
    do not depend on values, and memory is bounded by the batch.

    Args:
        item: ``(num_distinct, dim)``.
        category: ``(num_distinct,)``, -1 is left out.
        weight: ``(num_distinct,)`` number of times each item counts.
        num_categories: number of categories in the data.
        unbiased: divide by ``n - 1``, not ``n``.
    """
    category = torch.where(category < 0, num_categories, category)  # missing ones come last
    weight = weight.to(item.dtype)
    num_groups = min(num_categories + 1, len(item))
    # Groups number the categories that occur, in ascending order.
    occurs = category.new_zeros(num_categories + 1).index_fill(0, category, 1)
    group = (occurs.cumsum(0) - 1).index_select(0, category)  # (num_distinct,)
    unused = category.new_full((num_groups,), num_categories)
    category_of_group = unused.scatter(0, group, category)  # (num_groups,)
    n = sum_rows(weight, group, num_groups)
    total = sum_rows(weight[:, None] * item, group, num_groups)
    mean = total / n.clamp_min(1)[:, None]
    centred = item - mean.index_select(0, group)  # (num_distinct, dim)
    scatter = _sum_of_outer_products(weight.sqrt()[:, None] * centred, group, num_groups)
    divisor = (n - 1 if unbiased else n).clamp_min(1)
    n = n * (category_of_group < num_categories)
    return CategoryCovariance(scatter / divisor[:, None, None], n, category_of_group)


def _sum_of_outer_products(rows: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """``Σ x xᵀ`` over the rows of each group: ``(num_rows, dim)`` to ``(num_groups, dim, dim)``.

    The rows are sorted by group into tiles of ``TILE`` rows, padded with zeros so that no tile
    holds rows of two groups. One batched product over the tiles then has a cost that depends on the
    number of rows, not of groups, and shapes that do not depend on values.
    """
    num_rows, dim = rows.shape
    order = group.argsort(stable=True)
    sorted_group = group[order]
    size = sum_rows(torch.ones_like(group), group, num_groups)
    tiles = (size + TILE - 1) // TILE  # (num_groups,)
    last_tile, last_row = tiles.cumsum(0), size.cumsum(0)
    # A row moves back by the padding of the groups before its own.
    shift = (last_tile - tiles) * TILE - (last_row - size)  # (num_groups,)
    place = torch.arange(num_rows, device=rows.device) + shift[sorted_group]
    num_tiles = num_rows // TILE + num_groups  # the most there can be
    padded = rows.new_zeros(num_tiles * TILE, dim).index_copy(0, place, rows[order])
    padded = padded.view(num_tiles, TILE, dim)
    # Not arange: under vmap searchsorted wants as many rows of tiles as of groups.
    tile = last_tile.new_ones(num_tiles).cumsum(0) - 1
    group_of_tile = torch.searchsorted(last_tile, tile, right=True).clamp_max(num_groups - 1)
    return sum_rows(padded.mT @ padded, group_of_tile, num_groups)
