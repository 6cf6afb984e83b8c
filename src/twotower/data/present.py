"""Users as they are after everything that the data know of them: what serving starts from."""

from typing import Any

import torch
from torch import Tensor

from twotower.data.rows import take


def present_features(data: Any, user: Tensor) -> dict[str, Tensor]:
    """Features of users ``(batch,)``, histories with their latest interactions, each ``(batch, ...)``."""
    return data.user_features(take(data.tables["offset"], user + 1), user)


def present_seen(data: Any, user: Tensor) -> list[Tensor]:
    """Corpus indices of what each of ``(batch,)`` users has seen, ascending; none where the data do not mask it."""
    if not data.mask_seen:
        return [torch.zeros(0, dtype=torch.int64)] * len(user)
    offset, item = data.tables["offset"], data.tables["interactions/item"]
    return [item[offset[row] : offset[row + 1]].long().unique() for row in user.tolist()]
