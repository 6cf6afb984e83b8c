"""The arithmetic of every loss, as pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.types import Batch, Towers

TILE = 32


def own_logits(towers: Towers, batch: Batch, temperature: float, correct_log_q: bool = False) -> Tensor:
    """Logits of each positive and of its own negatives; a negative equal to the positive is ``-inf``.

    Returns:
        ``(batch, 1 + num_negatives)``; column 0 is the positive.
    """
    assert batch.negative is not None
    row = torch.cat([batch.positive[:, None], batch.negative], dim=1)  # (batch, 1 + num_negatives)
    item = towers.item.index_select(0, row.flatten()).view(*row.shape, -1)  # (batch, 1 + num_negatives, dim)
    logits = torch.bmm(item, towers.user[:, :, None]).squeeze(2) / temperature
    if correct_log_q:
        logits = logits - batch.log_q[row]
    accidental = row == row[:, :1]
    accidental[:, 0] = False
    return logits.masked_fill(accidental, float("-inf"))


def shared_logits(towers: Towers, batch: Batch, temperature: float, correct_log_q: bool) -> Tensor:
    """Logits of every distinct item for every user, as if each drawn negative stood in a column of its own.

    An item drawn ``n`` times gets ``+ log n``, which equals ``n`` columns in a softmax. A positive stands in its user's
    row once, however often it was drawn (accidental hits are not negatives). An item that was not drawn is masked, and so
    is one that the batch excludes for the user.

    Returns:
        ``(batch, num_distinct)``; the label of row ``i`` is ``batch.positive[i]``.
    """
    assert batch.num_draws is not None
    logits = towers.user @ towers.item.T / temperature  # (batch, num_distinct)
    if correct_log_q:
        logits = logits - batch.log_q
    draws = batch.num_draws.to(logits.dtype).log().expand_as(logits)  # -inf where not drawn
    if batch.excluded is not None:
        draws = draws.masked_fill(batch.excluded, float("-inf"))
    return logits + draws.scatter(1, batch.positive[:, None], 0.0)


def softmax_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy of the labelled column, in float32.

    Args:
        logits: ``(batch, num_candidates)``; masked candidates are ``-inf``.
        label: ``(batch,)`` column of each row's positive.
    """
    return F.cross_entropy(logits.float(), label)


def binary_cross_entropy(logits: Tensor) -> Tensor:
    """Mean binary cross-entropy over all pairs, column 0 positive (DAT, Eq. 4), from logits.

    Args:
        logits: ``(batch, 1 + num_negatives)``.
    """
    logits = logits.float()
    return (F.softplus(-logits[:, 0]).sum() + F.softplus(logits[:, 1:]).sum()) / logits.numel()


def pair_counts(batch: Batch) -> Tensor:
    """How often each distinct item stands in the batch, as a positive or as a drawn negative: ``(num_distinct,)``."""
    row = batch.positive if batch.negative is None else torch.cat([batch.positive[:, None], batch.negative], 1).flatten()
    counts = torch.zeros(len(batch.item_index), device=row.device)
    counts = counts.index_add(0, row, torch.ones_like(row, dtype=counts.dtype))
    return counts if batch.num_draws is None else counts + batch.num_draws


def mimic(augmented: Tensor, target: Tensor, num_pairs: int, over_dim: str = "sum") -> Tensor:
    """Adaptive-mimic loss of one side (DAT, Eq. 2).

    Eq. 2 is ``1/T Σ_T [y a + (1 - y) sg(p) - sg(p)]²``. For a negative pair (``y = 0``) the bracket is zero, for a positive
    one it is ``a - sg(p)``: so the sum runs over the positives, and the negatives count in ``T`` alone.

    Args:
        augmented: ``(num_positives, dim)`` ``a_u`` (or ``a_v``) of each positive pair.
        target: ``(num_positives, dim)`` the *other* tower's output, ``p_v`` (or ``p_u``). No gradient flows into it.
        num_pairs: ``T``.
        over_dim: ``sum`` or ``mean`` over ``dim``; the paper does not say which.
    """
    error = (augmented.float() - target.detach().float()).square()  # (num_positives, dim)
    per_pair = error.mean(1) if over_dim == "mean" else error.sum(1)
    return per_pair.sum() / num_pairs


def category_covariance(
    item: Tensor, category: Tensor, weight: Tensor, num_categories: int, unbiased: bool = True
) -> tuple[Tensor, Tensor]:
    """Covariance matrix of the item vectors of each category.

    Args:
        item: ``(num_distinct, dim)``.
        category: ``(num_distinct,)``, -1 is left out.
        weight: ``(num_distinct,)`` how often each item counts.
        num_categories: number of matrices.
        unbiased: divide by ``n - 1``, not ``n``.

    Returns:
        ``(num_categories, dim, dim)`` covariances, zero where ``n`` is too small to divide by, and
        ``(num_categories,)`` counts ``n``.
    """
    bin_ = torch.where(category < 0, num_categories, category)  # the last bin takes the missing ones
    weight = weight.to(item.dtype)
    n = item.new_zeros(num_categories + 1).index_add(0, bin_, weight)
    total = item.new_zeros(num_categories + 1, item.shape[1]).index_add(0, bin_, weight[:, None] * item)
    mean = total / n.clamp_min(1)[:, None]
    centred = item - mean.index_select(0, bin_)  # (num_distinct, dim)
    rows = weight.sqrt()[:, None] * centred
    scatter = _sum_of_outer_products(rows, bin_, num_categories + 1)
    divisor = (n - 1 if unbiased else n).clamp_min(1)
    covariance = scatter / divisor[:, None, None]
    return covariance[:-1], n[:-1]


def _sum_of_outer_products(rows: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """``Σ x xᵀ`` over the rows of each group: ``(num_rows, dim)`` to ``(num_groups, dim, dim)``.

    The rows are sorted by group into tiles of ``TILE`` rows, none shared by two groups, padded with zeros. One batched
    product over the tiles then costs what the rows cost, however many groups there are, and shapes are known in advance.
    """
    num_rows, dim = rows.shape
    order = group.argsort(stable=True)
    sorted_group = group[order]
    size = torch.zeros(num_groups, dtype=torch.long, device=rows.device).index_add(0, group, torch.ones_like(group))
    tiles = (size + TILE - 1) // TILE
    last_tile, last_row = tiles.cumsum(0), size.cumsum(0)
    place = torch.arange(num_rows, device=rows.device) + ((last_tile - tiles) * TILE - (last_row - size))[sorted_group]
    num_tiles = num_rows // TILE + num_groups
    padded = rows.new_zeros(num_tiles * TILE, dim).index_copy(0, place, rows[order]).view(num_tiles, TILE, dim)
    tile = torch.arange(num_tiles, device=rows.device)
    group_of_tile = torch.searchsorted(last_tile, tile, right=True).clamp_max(num_groups - 1)
    return rows.new_zeros(num_groups, dim, dim).index_add(0, group_of_tile, padded.mT @ padded)


def category_alignment(
    item: Tensor, category: Tensor, weight: Tensor, num_categories: int, min_items: int = 2, unbiased: bool = True
) -> Tensor:
    """Category alignment loss (DAT, Eq. 3): ``Σ_{i>=2} ‖C(S^major) - C(S^i)‖²_F``, computed in float32.

    The major category is the batch's largest; among equals the first. Gradient flows into both sides, as the paper has no
    stop gradient here. With fewer than two categories of ``min_items`` the loss is a zero that stays in the graph.

    Args:
        item: ``(num_distinct, dim)`` item tower outputs.
        category: ``(num_distinct,)``, -1 is left out.
        weight: ``(num_distinct,)`` how often each item stands in the batch.
        num_categories: number of categories in the data.
        min_items: categories with fewer items in the batch are left out. Below 2 the covariance says nothing.
        unbiased: divide by ``n - 1``, not ``n``; the paper does not name the estimator.
    """
    with torch.autocast(item.device.type, enabled=False):
        covariance, n = category_covariance(item.float(), category, weight, num_categories, unbiased)
        major = n.argmax()
        counted = (n >= min_items) & (n[major] >= min_items)  # (num_categories,)
        difference = (covariance - covariance.index_select(0, major[None])).square().sum((1, 2))
        return (difference * counted).sum()
