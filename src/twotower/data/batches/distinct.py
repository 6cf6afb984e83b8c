"""The distinct items of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def distinct_items(item: Tensor, room: int | None, padding: int) -> tuple[Tensor, Tensor]:
    """Each item once, ascending, and the row where each of ``item`` stands.

    Args:
        item: ``(num,)``.
        room: rows of the answer, at least as many as there are distinct items: its shape then follows from shapes alone, so
            nothing waits for the device to count. None: no more rows than items.
        padding: larger than every item; fills the rows that are left.

    Returns:
        ``(room,)`` or ``(num_distinct,)``, and ``(num,)``.
    """
    if room is None:
        distinct, row = torch.unique(item, return_inverse=True)
        return distinct, row
    ascending, order = item.sort()
    place = F.pad((ascending[1:] != ascending[:-1]).cumsum(0), (1, 0))  # (num,)
    row = torch.empty_like(place).scatter_(0, order, place)
    return item.new_full((room,), padding).scatter_(0, place, ascending), row
