"""Operations that also run for many models at once, under ``torch.vmap``.

Some fast kernels have no rule for a batch of models. A function that uses one writes the operation
out where :func:`is_batched` says so, and keeps the fast kernel for a single model.
"""

import torch
from torch import Tensor


def is_batched(x: Tensor) -> bool:
    """Does ``x`` stand for one tensor of each of several models, inside ``torch.vmap``?"""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_batchedtensor(x)


def sum_rows(rows: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Sums of the rows of each group.

    Args:
        rows: ``(num, ...)``.
        group: ``(num,)``.
        num_groups: groups are ``0 … num_groups - 1``.

    Returns:
        ``(num_groups, ...)``.
    """
    total = rows.new_zeros(num_groups, *rows.shape[1:])
    if not is_batched(group):
        return total.index_add(0, group, rows)
    # ``index_add`` would run once for each model.
    place = group.view(-1, *(1 for _ in rows.shape[1:])).expand_as(rows)
    return total.scatter_add(0, place, rows)
