"""Logits and losses as pure functions of tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from twotower.layers.batched import is_batched
from twotower.layers.precision import at_least_float32
from twotower.losses.own_scores import own_scores
from twotower.types import Batch, Towers


def own_logits(
    towers: Towers, batch: Batch, temperature: float, correct_log_q: bool = False
) -> Tensor:
    """Logits of each positive and its own negatives, ``-inf`` for negatives equal to it.

    Returns:
        ``(batch, 1 + num_negatives)``; column 0 is the positive.
    """
    assert batch.negative is not None
    row = torch.cat([batch.positive[:, None], batch.negative], dim=1)  # (batch, 1 + num_negatives)
    logits = own_scores(towers.user, towers.item, row) / temperature
    if correct_log_q:
        logits = logits - batch.log_q[row]
    accidental = row == row[:, :1]
    accidental[:, 0].zero_()
    return logits.masked_fill(accidental, float("-inf"))


def shared_logits(towers: Towers, batch: Batch, temperature: float, correct_log_q: bool) -> Tensor:
    """Logits of every distinct item for every user, for a softmax over the drawn negatives.

    An item drawn ``n`` times gets ``+ log n``, which equals ``n`` columns in a softmax. A user's
    positive counts once, however often it was drawn (accidental hits are not negatives). Items that
    were not drawn are masked, and those that the batch excludes for the user.

    Returns:
        ``(batch, num_distinct)``; the label of row ``i`` is ``batch.positive[i]``.
    """
    logits = at_least_float32(towers.user / temperature @ towers.item.T)  # (batch, num_distinct)
    offset, own = offsets(batch, correct_log_q, logits.dtype)
    offset = offset.expand_as(logits)  # (batch, num_distinct)
    if batch.excluded is not None:
        offset = offset.masked_fill(batch.excluded, float("-inf"))
    return logits + offset.scatter(1, batch.positive[:, None], own)


def offsets(batch: Batch, correct_log_q: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What :func:`shared_logits` adds to the scores.

    Returns:
        ``(num_distinct,)`` for drawn negatives, ``-inf`` where not drawn, and ``(batch, 1)`` for
        the positives.
    """
    assert batch.num_draws is not None
    log_q = batch.log_q if correct_log_q else torch.zeros_like(batch.log_q)  # (num_distinct,)
    offset = batch.num_draws.to(dtype).log() - log_q
    return offset, -log_q[batch.positive[:, None]].to(offset.dtype)


def softmax_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the labelled column, in float32 or better.

    Args:
        logits: ``(batch, num_candidates)``; masked candidates are ``-inf``.
        label: ``(batch,)`` column of each row's positive.
        weight: ``(batch,)``, see :class:`~twotower.types.Batch`.
    """
    logits = at_least_float32(logits)
    if is_batched(logits):
        if weight is None:
            return F.cross_entropy(logits, label)
        return (weight * F.cross_entropy(logits, label, reduction="none")).mean()
    loss: Tensor = _CrossEntropy.apply(logits, label, weight)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """``F.cross_entropy`` with fewer passes over the logits in its gradient: half the CPU time."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
        log_p = logits.log_softmax(1)
        ctx.save_for_backward(log_p, label, weight)
        own = log_p.gather(1, label[:, None])  # (batch, 1)
        return -(own if weight is None else weight[:, None] * own).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        log_p, label, weight = ctx.saved_tensors
        p = log_p.exp()
        p.scatter_add_(1, label[:, None], p.new_full((len(p), 1), -1.0))  # p - 1 where the label is
        scale = gradient / len(p)
        return p.mul_(scale if weight is None else scale * weight[:, None]), None, None


def binary_cross_entropy(
    logits: Tensor, weight: Tensor | None = None, negative_weight: Tensor | None = None
) -> Tensor:
    """Mean binary cross-entropy over all pairs, column 0 positive (DAT, Eq. 4), from logits.

    Args:
        logits: ``(batch, 1 + num_negatives)``.
        weight: ``(batch,)`` of a positive and its negatives, see :class:`~twotower.types.Batch`.
        negative_weight: see :func:`mean_of_pairs`.
    """
    logits = at_least_float32(logits)
    negative = F.softplus(logits[:, 1:])
    return mean_of_pairs(F.softplus(-logits[:, 0]), negative, weight, negative_weight)


def mean_of_pairs(
    positive: Tensor,
    negative: Tensor,
    weight: Tensor | None,
    negative_weight: Tensor | None = None,
) -> Tensor:
    """Mean of the losses of all pairs, of which weighted ones count as one each.

    Args:
        positive: ``(batch,)``.
        negative: ``(batch, num_negatives)``.
        weight: ``(batch,)``, see :class:`~twotower.types.Batch`.
        negative_weight: ``(num_negatives,)``, see :class:`~twotower.types.Batch`.
    """
    if negative_weight is not None:
        negative = negative_weight * negative
    num_pairs = positive.numel() + negative.numel()
    if weight is not None:
        positive, negative = weight * positive, weight[:, None] * negative
    return (positive.sum() + negative.sum()) / num_pairs


def mimic(
    augmented: Tensor,
    target: Tensor,
    num_pairs: int,
    over_dim: str = "sum",
    weight: Tensor | None = None,
) -> Tensor:
    """Adaptive-mimic loss of one side (DAT, Eq. 2).

    Eq. 2 is ``1/T Σ_T [y a + (1 - y) sg(p) - sg(p)]²``. For a negative pair (``y = 0``) the bracket
    is zero, for a positive one it is ``a - sg(p)``. So the sum is over the positives, and negatives
    only count in ``T``.

    Args:
        augmented: ``(num_positives, dim)`` ``a_u`` (or ``a_v``) of each positive pair.
        target: ``(num_positives, dim)`` the *other* tower's output, ``p_v`` (or ``p_u``), which
            gets no gradient.
        num_pairs: ``T``.
        over_dim: ``sum`` or ``mean`` over ``dim``; the paper does not say which.
        weight: ``(num_positives,)``, see :class:`~twotower.types.Batch`.
    """
    difference = at_least_float32(augmented) - at_least_float32(target.detach())
    error = difference.square()  # (num_positives, dim)
    per_pair = error.mean(1) if over_dim == "mean" else error.sum(1)
    if weight is not None:
        per_pair = weight * per_pair
    return per_pair.sum() / num_pairs
