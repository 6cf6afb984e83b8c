"""Exact ranks and lists by brute force: one matrix product per chunk of users."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SCORES_PER_CHUNK = 1 << 25  # 128 MiB of float32
CACHED_SCORES = 1 << 20  # 4 MiB: a CPU counts scores that are still in its cache several times faster
CACHED_ROWS = 16  # but a matrix product wants some rows


def encode_corpus(model: Any, chunks: Iterable[dict[str, Tensor]]) -> Tensor:
    """``(num_items, dim)`` float32 vectors of all items, from their features as ``corpus`` of a data module gives them."""
    return torch.cat([model.encode_item(features).float() for features in chunks])


def target_ranks(user: Tensor, item: Tensor, target: Tensor, seen_row: Tensor, seen_item: Tensor) -> Tensor:
    """Rank of each target among all items that its user has not seen, ties counted against the model.

    A rank is one plus the number of other candidates whose score is not lower, so equal scores, and scores that are no
    number, never help. A target stays a candidate even if it was seen before.

    Args:
        user: ``(batch, dim)``, or ``(batch, num_interests, dim)``: then the best of a user's interests scores an item.
        item: ``(num_items, dim)``.
        target: ``(batch, num_targets)`` item indices, -1 pads after the first.
        seen_row: ``(num_seen,)`` rows of ``user``, ascending.
        seen_item: ``(num_seen,)`` the items those users have seen.

    Returns:
        ``(batch, num_targets)`` ranks, 1 is best, 0 for padding.
    """
    rows = _rows_per_chunk(len(item) * user.shape[1:-1].numel(), user.device.type)
    bounds = torch.arange(0, max(1, len(user)) + rows, rows, device=user.device).clamp_max(len(user))
    seen_bounds = torch.searchsorted(seen_row.contiguous(), bounds).tolist()
    return torch.cat(
        [
            _chunk_ranks(
                user[start : start + rows],
                item,
                target[start : start + rows],
                seen_row[seen_bounds[chunk] : seen_bounds[chunk + 1]] - start,
                seen_item[seen_bounds[chunk] : seen_bounds[chunk + 1]],
            )
            for chunk, start in enumerate(range(0, max(1, len(user)), rows))  # of nobody one, without rows
        ]
    )


def top_k(user: Tensor, item: Tensor, seen_row: Tensor, seen_item: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best items that each user has not seen.

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
    rows = _rows_per_chunk(len(item) * user.shape[1:-1].numel(), user.device.type)
    found = []
    for start in range(0, len(user), rows):
        scores = user[start : start + rows] @ item.T
        scores = scores.amax(1) if scores.dim() == 3 else scores  # (rows, num_items)
        here = (seen_row >= start) & (seen_row < start + rows)
        scores[seen_row[here] - start, seen_item[here]] = float("-inf")
        found.append(scores.topk(k, dim=1))
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _rows_per_chunk(scores_per_row: int, device: str) -> int:
    rows = SCORES_PER_CHUNK // scores_per_row
    if device == "cpu":
        rows = min(rows, max(CACHED_ROWS, CACHED_SCORES // scores_per_row))
    return max(1, rows)


def _chunk_ranks(user: Tensor, item: Tensor, target: Tensor, seen_row: Tensor, seen_item: Tensor) -> Tensor:
    scores = user @ item.T  # (batch, num_items), or (batch, num_interests, num_items)
    scores = scores.amax(1) if scores.dim() == 3 else scores
    padded = target < 0
    target = target.where(~padded, target[:, :1])
    target_score = scores.gather(1, target)  # (batch, num_targets)
    scores[seen_row, seen_item] = float("-inf")
    scores.scatter_(1, target, target_score)
    rank = torch.zeros_like(target)
    rank[:, 0] = _not_lower(scores, target_score[:, 0])
    for column in range(1, target.shape[1]):
        row = (~padded[:, column]).nonzero().squeeze(1)  # few users have many targets
        rank[row, column] = _not_lower(scores[row], target_score[row, column])
    return rank


def _not_lower(scores: Tensor, target_score: Tensor) -> Tensor:
    """``(batch, num_items)`` scores not below each row's ``(batch,)`` target score; the target is one of them."""
    return (~(scores < target_score[:, None])).sum(1)
