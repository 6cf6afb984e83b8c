"""Users after their last interaction, as serving needs them: features and seen items."""

import torch
from torch import Tensor

from twotower.data.batches.rows import hidden, items_from, take
from twotower.data.datamodule import RetrievalDataModule


def present_features(data: RetrievalDataModule, user: Tensor) -> dict[str, Tensor]:
    """Features of users ``(batch,)`` with their latest histories, each ``(batch, ...)``."""
    return data.user_features(take(data.tables["offset"], user + 1), user)


def present_seen(data: RetrievalDataModule, user: Tensor) -> list[Tensor]:
    """Items that lists hide from each of ``(batch,)`` users, as ascending corpus indices.

    These are all seen items, or none with ``data.mask_seen=false``. There are no held-out targets
    that ``except_targets`` could spare.
    """
    offset, num_items = data.tables["offset"], data.schema.num_items
    start, end = take(offset, user), take(offset, user + 1)
    row, item = items_from(data.tables, start, end - start)
    row, item = hidden(row, item, user.new_zeros(len(user), 0), data.mask_seen)
    pair = (row * num_items + item).unique()  # (num_pairs,), by row, then item
    count = torch.bincount(pair // num_items, minlength=len(user))
    return list((pair % num_items).split(count.tolist()))
