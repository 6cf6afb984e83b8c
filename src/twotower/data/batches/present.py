"""Users as they are after everything that the data know of them: what serving starts from."""

from typing import Any

import torch
from torch import Tensor

from twotower.data.batches.rows import hidden, take


def present_features(data: Any, user: Tensor) -> dict[str, Tensor]:
    """Features of users ``(batch,)``, histories with their latest interactions, each ``(batch, ...)``."""
    return data.user_features(take(data.tables["offset"], user + 1), user)


def present_seen(data: Any, user: Tensor) -> list[Tensor]:
    """Corpus indices of what no list shows each of ``(batch,)`` users, ascending.

    It is all that they have seen, or nothing where the data do not mask it: of the future no target
    is known that could be spared.
    """
    offset, item = data.tables["offset"], data.tables["interactions/item"]
    unknown = user.new_zeros(1, 0)
    found = []
    for row in user.tolist():
        seen = item[offset[row] : offset[row + 1]].long().unique()
        found.append(hidden(torch.zeros_like(seen), seen, unknown, data.mask_seen)[1])
    return found
