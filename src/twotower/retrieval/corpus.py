"""The item vectors of an evaluation: all of them, or in several processes a block in each."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from twotower.distributed.collectives import (
    RowGatherer,
    all_gather,
    largest_over_processes,
    sum_over_processes,
    world_size,
)
from twotower.distributed.sharding import Block
from twotower.retrieval.exact import encode_corpus, target_ranks, top_k
from twotower.types import Features, Model

BLOCK = 1 << 16  # vectors that are checked and summed at a time


def own_block(num_items: int) -> Block | None:
    """The items of which this process holds vectors; None: of all, as it is the only process."""
    num = world_size()
    return None if num == 1 else Block(dist.get_rank(), num, num_items)


class Corpus:
    """Item vectors to rank for users.

    With a block, each process ranks its own items for the users of all processes, and they add up
    what they found. So a process needs memory for its block alone, and all of them must call the
    same methods in the same order, each for its own users, possibly none.

    Args:
        own: ``(num_own, dim)``, of all items or of a block.
        block: the items that ``own`` holds; None: all.
    """

    def __init__(self, own: Tensor, block: Block | None = None) -> None:
        self.own = own
        self.block = block

    @classmethod
    def encoded(
        cls, model: Model, chunks: Iterable[Features], num_items: int, block: Block | None = None
    ) -> "Corpus":
        """From the features of all ``num_items``, or of the block's, that ``data.corpus`` gives."""
        return cls(encode_corpus(model, chunks, block.num_own if block else num_items), block)

    def __len__(self) -> int:
        """Items of all processes."""
        return len(self.own) if self.block is None else self.block.num_rows

    def rank(
        self, user: Tensor, target: Tensor, seen_row: Tensor, seen_item: Tensor, k: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Ranks of targets, and the best items.

        Args:
            user: of this process, like the next three, see :func:`target_ranks`.
            target: ``(batch, num_targets)``.
            seen_row: ``(num_seen,)``.
            seen_item: ``(num_seen,)``.
            k: length of the lists; 0: none are made.

        Returns:
            Ranks ``(batch, num_targets)``, and items ``(batch, k)``, -1 where a user has no more.
        """
        if self.block is None:
            rank = target_ranks(user, self.own, target, seen_row, seen_item)
            best = top_k(user, self.own, seen_row, seen_item, k) if k else None
        else:
            everyone = RowGatherer(len(user), user.device)
            num_targets = largest_over_processes(target.shape[1], user.device)
            wide = target.new_full((len(target), num_targets), -1)
            wide[:, : target.shape[1]] = target
            users = everyone(user)
            seen = self._seen_of_all(seen_row + everyone.first, seen_item)
            ranks = target_ranks(users, self.own, everyone(wide, -1), *seen, self.block)
            rank = ranks[everyone.own, : target.shape[1]]
            best = self._best_of_all(users, *seen, k, everyone.own) if k else None
        if best is None:
            return rank, None
        score, item = best
        return rank, item.masked_fill(score == float("-inf"), -1)

    def _seen_of_all(self, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Seen pairs of all processes, rows ascending, of items of this process as places here."""
        assert self.block is not None
        pairs = RowGatherer(len(row), row.device)
        rows, place = pairs(row), pairs(item, -1) - self.block.first
        is_own = (place >= 0) & (place < self.block.num_own)  # padding is below 0
        return rows[is_own], place[is_own]

    def _best_of_all(
        self, users: Tensor, seen_row: Tensor, seen_item: Tensor, k: int, own_users: slice
    ) -> tuple[Tensor, Tensor]:
        """Scores and items ``(batch, k)`` of this process's users, from the best of each block."""
        assert self.block is not None
        score, place = top_k(users, self.own, seen_row, seen_item, k)
        missing = (0, min(k, len(self)) - score.shape[1])  # a block may have fewer than k items
        score = torch.nn.functional.pad(score, missing, value=float("-inf"))
        item = torch.nn.functional.pad(place + self.block.first, missing)
        scores, items = (
            all_gather(part)[:, own_users].transpose(0, 1).flatten(1) for part in (score, item)
        )  # (batch, world_size * k)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        best = order[:, : min(k, len(self))]
        return scores[:, : best.shape[1]], items.gather(1, best)

    def rows(self, items: Tensor) -> Tensor:
        """``(num, dim)`` vectors of these items, which each process may choose for itself."""
        if self.block is None:
            return self.own[items]
        wanted = RowGatherer(len(items), items.device)
        place = wanted(items, -1) - self.block.first
        is_own = (place >= 0) & (place < self.block.num_own)
        found = self.own.new_zeros(len(place), self.own.shape[1])
        found[is_own] = self.own[place[is_own]]
        return sum_over_processes(found)[wanted.own]

    def is_finite(self) -> bool:
        """Whether all vectors of all processes are finite."""
        finite = all(bool(torch.isfinite(block).all()) for block in self.own.split(BLOCK))
        return self._sum(int(not finite)) == 0

    def zero_share(self) -> float:
        """Share of vectors that are zero: of dead ReLUs, and never found."""
        zero = sum(int((block == 0).all(1).sum()) for block in self.own.split(BLOCK))
        return self._sum(zero) / len(self)

    def mean_cosine(self) -> float:
        """Mean cosine of two different vectors; near 1 all are alike."""
        total = self.own.new_zeros(self.own.shape[1] + 1, dtype=torch.float64)  # sums, squares
        for block in self.own.split(BLOCK):
            unit = torch.nn.functional.normalize(block.double(), dim=1)
            total[:-1] += unit.sum(0)
            total[-1] += unit.square().sum()
        total = total if self.block is None else sum_over_processes(total)
        num = len(self)
        return ((total[:-1].square().sum() - total[-1]) / max(1, num * (num - 1))).item()

    def _sum(self, own: int) -> int:
        if self.block is None:
            return own
        return int(sum_over_processes(torch.tensor(own, device=self.own.device)))
