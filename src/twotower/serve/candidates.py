"""The items that a list may hold, and the best of them for users."""

from typing import NamedTuple

import torch
from torch import Tensor

from twotower.errors import UserError
from twotower.retrieval.exact import top_k
from twotower.serve.lookup import plain


class Candidates(NamedTuple):
    """Items to rank.

    Attributes:
        vectors: ``(num, dim)``.
        rows: ``(num,)`` their corpus indices, ascending.
    """

    vectors: Tensor
    rows: Tensor

    @classmethod
    def of(cls, vectors: Tensor, rows: Tensor) -> "Candidates":
        """The corpus ``(num_items, dim)``, or the part of it with these indices."""
        return cls(vectors if len(rows) == len(vectors) else vectors[rows], rows)

    def best(
        self, user: Tensor, hidden_row: Tensor, hidden_item: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        """Scores and corpus indices, see :func:`twotower.retrieval.exact.top_k`."""
        place = torch.searchsorted(self.rows, hidden_item).clamp_max(len(self.rows) - 1)
        is_candidate = self.rows[place] == hidden_item
        pairs = hidden_row[is_candidate], place[is_candidate]
        score, found = top_k(user, self.vectors, *pairs, k)
        return score, self.rows[found]


def checked_k(k: int, most: int) -> int:
    """``k`` as Python's integer; NumPy's and torch's are accepted."""
    whole = plain(k)
    if isinstance(whole, bool) or not isinstance(whole, int) or not 1 <= whole <= most:
        raise UserError(f"k={k}: give a whole number from 1 to {most:,}, the number of items")
    return whole
