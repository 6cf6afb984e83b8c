"""The distinct items of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def distinct_items(item: Tensor, room: int | None, padding: int) -> tuple[Tensor, Tensor]:
    """Each item once, ascending, and the row of each given item among them.

    Args:
        item: ``(num,)``.
        room: number of rows returned, at least that of distinct items. The shape then does not
            depend on values, so nothing waits for the device. None: as many rows as distinct items.
        padding: fills the remaining rows; larger than every item.

    Returns:
        Items ``(room,)`` or ``(num_distinct,)``, and rows ``(num,)``.
    """
    if room is None:
        distinct, row = torch.unique(item, return_inverse=True)
        return distinct, row
    ascending, order = item.sort()
    place = F.pad((ascending[1:] != ascending[:-1]).cumsum(0), (1, 0))  # (num,)
    row = torch.empty_like(place).scatter_(0, order, place)
    return item.new_full((room,), padding).scatter_(0, place, ascending), row
