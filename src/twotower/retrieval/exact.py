"""User and item vectors, and their exact ranks and top-k lists by brute force.

Vectors and scores are in float32 or better in every precision of the trainer.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from twotower.distributed.collectives import sum_over_processes
from twotower.distributed.sharding import Block
from twotower.layers.precision import (
    at_least_float32,
    float32_weights,
    float_tensors,
    full_precision,
)
from twotower.types import HIDDEN_RANK, Features, Model

SCORES_PER_CHUNK = 1 << 25  # 128 MiB of float32
# On a CPU, scores that are still in the cache (4 MiB) are counted several times faster, but with
# fewer than 16 rows the matrix product is slow.
CACHED_SCORES = 1 << 20
CACHED_ROWS = 16
READ_AHEAD = 1 << 16  # items read from a file at a time


def encode_users(model: Model, features: Features) -> Tensor:
    """``(batch, dim)``, or ``(batch, num_interests, dim)``, of users with these features."""
    with _precise(model, features):
        return at_least_float32(model.encode_user(features))


def encode_items(model: Model, features: Features) -> Tensor:
    """``(batch, dim)`` of items with these features."""
    with _precise(model, features):
        return at_least_float32(model.encode_item(features))


def encode_blocks(model: Model, chunks: Iterable[Features]) -> Iterator[Tensor]:
    """``(chunk, dim)`` for each chunk of features of ``data.corpus``."""
    with float32_weights(model):  # one conversion for all chunks
        for features in chunks:
            yield encode_items(model, features)


def encode_corpus(model: Model, chunks: Iterable[Features], num_items: int) -> Tensor:
    """``(num_items, dim)`` of the first items, from the chunks of features of ``data.corpus``.

    Each block goes to its place at once: joining them at the end would take twice the memory.
    """
    corpus = torch.empty(0)
    start = 0
    for block in encode_blocks(model, chunks):
        if start == 0:
            corpus = block.new_empty(num_items, block.shape[1])
        rows = corpus[start : start + len(block)]
        rows.copy_(block[: len(rows)])
        start += len(block)
    return corpus


@contextmanager
def _precise(model: Model, features: Features) -> Iterator[None]:
    """Inside, the model computes in float32, or in float64 if its weights are."""
    is_double = any(tensor.dtype == torch.float64 for tensor in float_tensors(model))
    dtype = torch.float64 if is_double else torch.float32
    device = next(iter(features.values())).device
    with float32_weights(model), full_precision(device, dtype):
        yield


def target_ranks(
    user: Tensor,
    item: Tensor,
    target: Tensor,
    seen_row: Tensor,
    seen_item: Tensor,
    block: Block | None = None,
) -> Tensor:
    """Rank of each target among all items except the user's seen ones, ties against the model.

    A rank is one plus the number of other candidates with a score that is not lower, so equal
    scores and NaN never help. A target that is masked as seen itself has the rank ``HIDDEN_RANK``:
    :func:`top_k` never shows it.

    Args:
        user: ``(batch, dim)``, or ``(batch, num_interests, dim)``: an item's score is then that of
            the user's best interest.
        item: ``(num_items, dim)``.
        target: ``(batch, num_targets)`` item indices; -1 pads, never first.
        seen_row: ``(num_seen,)`` rows of ``user``, ascending.
        seen_item: ``(num_seen,)`` the items masked for those users, as rows of ``item``.
        block: the items in ``item``, where each process has others; all are called with the same
            users and targets, and get the same ranks. None: all items.

    Returns:
        ``(batch, num_targets)`` ranks, 1 is best, 0 for padding.
    """
    user, item = at_least_float32(user), at_least_float32(item)
    ranks = []
    with full_precision(user.device, user.dtype):
        width = len(item) if block is None else block.width  # the same in all processes
        for rows, row, seen in _chunks(user, width, seen_row, seen_item):
            ranks.append(_ranks(_scores(user[rows], item, row, seen), target[rows], block))
    return torch.cat(ranks)


def top_k(
    user: Tensor, item: Tensor, seen_row: Tensor, seen_item: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The best items of each user, without the seen ones.

    Args:
        user: see :func:`target_ranks`, like the next three.
        item: ``(num_items, dim)``.
        seen_row: ``(num_seen,)`` ascending.
        seen_item: ``(num_seen,)``.
        k: length of the lists, at most ``num_items``.

    Returns:
        Scores and items, each ``(batch, k)``, best first. A user with fewer than ``k`` unseen items
        has scores of ``-inf`` at the end.
    """
    k = min(k, len(item))
    user, item = at_least_float32(user), at_least_float32(item)
    best = []
    with full_precision(user.device, user.dtype):
        for rows, row, seen in _chunks(user, len(item), seen_row, seen_item):
            best.append(_scores(user[rows], item, row, seen).topk(k, dim=1))
    return torch.cat([part.values for part in best]), torch.cat([part.indices for part in best])


def top_k_by_block(
    user: Tensor, item: Tensor, seen_row: Tensor, seen_item: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """:func:`top_k`, which reads the items once, block by block: they may be mapped from a file."""
    scores, items = [], []
    start = 0
    for block in item.split(READ_AHEAD):
        own = (seen_item >= start) & (seen_item < start + len(block))
        score, place = top_k(user, block, seen_row[own], seen_item[own] - start, k)
        scores.append(score)
        items.append(place + start)
        start += len(block)
    # of (batch, num_blocks * k); stable, so that one block gives the lists of top_k
    score, place = torch.cat(scores, 1).sort(dim=1, descending=True, stable=True)
    return score[:, :k], torch.cat(items, 1).gather(1, place[:, :k])


def _chunks(
    user: Tensor, num_items: int, seen_row: Tensor, seen_item: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of ``user`` to score together, and their seen pairs, with rows relative to the chunk."""
    rows = _rows_per_chunk(max(1, num_items) * user.shape[1:-1].numel(), user.device.type)
    num = max(1, len(user))  # an empty batch gives one chunk without rows
    bounds = torch.arange(0, num + rows, rows, device=user.device).clamp_max(len(user))
    seen_bounds = torch.searchsorted(seen_row.contiguous(), bounds).tolist()
    for start, first, last in zip(range(0, num, rows), seen_bounds, seen_bounds[1:], strict=False):
        yield slice(start, start + rows), seen_row[first:last] - start, seen_item[first:last]


def _rows_per_chunk(scores_per_row: int, device: str) -> int:
    rows = SCORES_PER_CHUNK // scores_per_row
    if device == "cpu":
        rows = min(rows, max(CACHED_ROWS, CACHED_SCORES // scores_per_row))
    return max(1, rows)


def _scores(user: Tensor, item: Tensor, seen_row: Tensor, seen_item: Tensor) -> Tensor:
    """``(batch, num_items)`` scores, ``-inf`` for seen items."""
    scores = user @ item.T  # (batch, num_items), or (batch, num_interests, num_items)
    scores = scores.amax(1) if scores.dim() == 3 else scores
    scores[seen_row, seen_item] = float("-inf")
    return scores


def _ranks(scores: Tensor, target: Tensor, block: Block | None) -> Tensor:
    """``(batch, num_targets)`` ranks of the targets, 0 for padding."""
    padded = target < 0
    target = target.where(~padded, target[:, :1])
    target_score = _target_scores(scores, target, block)  # (batch, num_targets)
    rank = torch.zeros_like(target)
    rank[:, 0] = _not_lower(scores, target_score[:, 0])
    for column in range(1, target.shape[1]):
        # Few users have many targets, so only the rows that have this one are counted.
        row = (~padded[:, column]).nonzero().squeeze(1)
        rank[row, column] = _not_lower(scores[row], target_score[row, column])
    if block is not None:
        rank = sum_over_processes(rank)
    return rank.masked_fill((target_score == float("-inf")) & ~padded, HIDDEN_RANK)


def _target_scores(scores: Tensor, target: Tensor, block: Block | None) -> Tensor:
    """``(batch, num_targets)`` scores, in all processes those of the one with the target."""
    if block is None:
        return scores.gather(1, target)
    place = target - block.first
    row, column = ((place >= 0) & (place < block.num_own)).nonzero(as_tuple=True)
    own = scores.new_zeros(target.shape)
    own[row, column] = scores[row, place[row, column]]
    return sum_over_processes(own)


def _not_lower(scores: Tensor, target_score: Tensor) -> Tensor:
    """``(batch,)`` numbers of scores not below each row's target score, the target's included.

    Args:
        scores: ``(batch, num_items)``.
        target_score: ``(batch,)``.
    """
    # A sum in int64 takes twice the time.
    lower = (scores < target_score[:, None]).sum(1, dtype=torch.int32)
    return scores.shape[1] - lower.long()
