"""Exact ranks and lists by brute force: one matrix product per chunk of users."""

from collections.abc import Iterator

import torch
from torch import Tensor

from twotower.retrieval.encode import at_least_float32, full_precision
from twotower.types import HIDDEN_RANK

SCORES_PER_CHUNK = 1 << 25  # 128 MiB of float32
CACHED_SCORES = (
    1 << 20
)  # 4 MiB: a CPU counts scores that are still in its cache several times faster
CACHED_ROWS = 16  # but a matrix product wants some rows


def target_ranks(
    user: Tensor, item: Tensor, target: Tensor, seen_row: Tensor, seen_item: Tensor
) -> Tensor:
    """Rank of each target among all items that are not hidden from its user, ties counted against the model.

    A rank is one plus the number of other candidates whose score is not lower, so equal scores, and scores that are no
    number, never help. A target that is hidden itself has the rank ``HIDDEN_RANK``: :func:`top_k` never shows it.

    Args:
        user: ``(batch, dim)``, or ``(batch, num_interests, dim)``: then the best of a user's interests scores an item.
        item: ``(num_items, dim)``.
        target: ``(batch, num_targets)`` item indices, -1 pads after the first.
        seen_row: ``(num_seen,)`` rows of ``user``, ascending.
        seen_item: ``(num_seen,)`` the items hidden from those users.

    Returns:
        ``(batch, num_targets)`` ranks, 1 is best, 0 for padding.
    """
    user, item = at_least_float32(user), at_least_float32(item)
    chunks = _chunks(user, item, seen_row, seen_item)
    with full_precision(user.device, user.dtype):
        return torch.cat(
            [_chunk_ranks(user[rows], item, target[rows], *seen) for rows, *seen in chunks]
        )


def top_k(
    user: Tensor, item: Tensor, seen_row: Tensor, seen_item: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The best items that are not hidden from each user.

    Args:
        user: see :func:`target_ranks`, like the next three.
        item: ``(num_items, dim)``.
        seen_row: ``(num_seen,)`` ascending.
        seen_item: ``(num_seen,)``.
        k: how many, at most ``num_items``.

    Returns:
        Scores and items, each ``(batch, k)``, best first; a score of ``-inf`` where a user has not so many unseen ones.
    """
    k = min(k, len(item))
    user, item = at_least_float32(user), at_least_float32(item)
    found = []
    for rows, row, seen in _chunks(user, item, seen_row, seen_item):
        with full_precision(user.device, user.dtype):
            scores = user[rows] @ item.T
        scores = scores.amax(1) if scores.dim() == 3 else scores  # (rows, num_items)
        scores[row, seen] = float("-inf")
        found.append(scores.topk(k, dim=1))
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _chunks(
    user: Tensor, item: Tensor, seen_row: Tensor, seen_item: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of ``user`` that are scored together, and what they have seen: rows counted from the first of them, and items."""
    rows = _rows_per_chunk(len(item) * user.shape[1:-1].numel(), user.device.type)
    num = max(1, len(user))  # of nobody one chunk, without rows
    bounds = torch.arange(0, num + rows, rows, device=user.device).clamp_max(len(user))
    seen_bounds = torch.searchsorted(seen_row.contiguous(), bounds).tolist()
    for start, first, last in zip(range(0, num, rows), seen_bounds, seen_bounds[1:], strict=False):
        yield slice(start, start + rows), seen_row[first:last] - start, seen_item[first:last]


def _rows_per_chunk(scores_per_row: int, device: str) -> int:
    rows = SCORES_PER_CHUNK // scores_per_row
    if device == "cpu":
        rows = min(rows, max(CACHED_ROWS, CACHED_SCORES // scores_per_row))
    return max(1, rows)


def _chunk_ranks(
    user: Tensor, item: Tensor, target: Tensor, seen_row: Tensor, seen_item: Tensor
) -> Tensor:
    scores = user @ item.T  # (batch, num_items), or (batch, num_interests, num_items)
    scores = scores.amax(1) if scores.dim() == 3 else scores
    scores[seen_row, seen_item] = float("-inf")
    padded = target < 0
    target = target.where(~padded, target[:, :1])
    target_score = scores.gather(1, target)  # (batch, num_targets)
    rank = torch.zeros_like(target)
    rank[:, 0] = _not_lower(scores, target_score[:, 0])
    for column in range(1, target.shape[1]):
        row = (~padded[:, column]).nonzero().squeeze(1)  # few users have many targets
        rank[row, column] = _not_lower(scores[row], target_score[row, column])
    return rank.masked_fill((target_score == float("-inf")) & ~padded, HIDDEN_RANK)


def _not_lower(scores: Tensor, target_score: Tensor) -> Tensor:
    """``(batch, num_items)`` scores not below each row's ``(batch,)`` target score; the target is one of them."""
    lower = (scores < target_score[:, None]).sum(
        1, dtype=torch.int32
    )  # adding up as int64 takes twice the time
    return scores.shape[1] - lower.long()
