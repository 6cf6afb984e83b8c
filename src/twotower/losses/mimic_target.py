"""Placebos: what augmented vectors mimic instead of the paper's target, to see what it is for."""

import torch
from torch import Tensor

from twotower.distributed.collectives import sum_over_processes
from twotower.layers.precision import at_least_float32

# Odd numbers of 64 bits that spread neighbouring numbers (splitmix64).
FIRST, SECOND = -7046029254386353131, -4658895280553007687


def of_another(own: Tensor, owner: Tensor, salt: Tensor) -> tuple[Tensor, Tensor]:
    """The target of another owner's row, for each row.

    Owners come in a random order, the rows of each together, and a row takes the target of the row
    half the batch further on. So no owner with at most half of the rows meets itself, although in a
    batch of sequences most neighbours are of one user. The order follows from the batch alone: a
    resumed, recorded or fused step shuffles as a plain one does, and no generator is used.

    Args:
        own: ``(batch, dim)`` the paper's targets.
        owner: ``(batch,)`` number of the user (or item) whose augmented vector mimics each.
        salt: scalar integer; another one gives another order.

    Returns:
        ``(batch, dim)`` targets, and ``(batch,)`` False where a row met its own owner.
    """
    order = _hash(owner.long(), salt).argsort(stable=True)  # (batch,)
    further = order.roll(-(len(order) // 2))
    partner = torch.scatter(order, 0, order, further)  # partner[order] = further
    return own[partner], owner[partner] != owner


def _hash(number: Tensor, salt: Tensor) -> Tensor:
    """A pseudo-random 64-bit number for each number."""
    mixed = (number + salt * SECOND) * FIRST
    mixed = (mixed ^ (mixed >> 31)) * SECOND
    return mixed ^ (mixed >> 29)


def mean_of_batch(own: Tensor) -> Tensor:
    """The mean of all processes' targets ``(batch, dim)`` in the place of each.

    It is the best target that does not depend on the row, and needs no state.
    """
    rows = at_least_float32(own.detach())
    counted = torch.cat([rows.sum(0), rows.new_full((1,), len(rows))])  # (dim + 1,)
    total = sum_over_processes(counted)
    return (total[:-1] / total[-1]).expand_as(rows)
