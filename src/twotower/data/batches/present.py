"""Users after their last interaction, as serving needs them: features and seen items."""

import torch
from torch import Tensor

from twotower.data.batches.rows import hidden, take
from twotower.data.datamodule import RetrievalDataModule


def present_features(data: RetrievalDataModule, user: Tensor) -> dict[str, Tensor]:
    """Features of users ``(batch,)`` with their latest histories, each ``(batch, ...)``."""
    return data.user_features(take(data.tables["offset"], user + 1), user)


def present_seen(data: RetrievalDataModule, user: Tensor) -> list[Tensor]:
    """Items that lists hide from each of ``(batch,)`` users, as ascending corpus indices.

    These are all seen items, or none with ``data.mask_seen=false``. There are no held-out targets
    that ``except_targets`` could spare.
    """
    offset, item = data.tables["offset"], data.tables["interactions/item"]
    no_target = user.new_zeros(1, 0)
    items = []
    for row in user.tolist():
        seen = item[offset[row] : offset[row + 1]].long().unique()
        items.append(hidden(torch.zeros_like(seen), seen, no_target, data.mask_seen)[1])
    return items
