"""What stands around some positions of the interactions, which are sorted by user and time: histories, targets, what was seen."""

import torch
from torch import Tensor

from twotower.types import EvalIndex


def history(tables: dict[str, Tensor], position: Tensor, user: Tensor, length: int, num_train_items: int) -> Tensor:
    """``item_id`` features of the interactions just before ``position``: ``(batch, length)``, 0 is padding."""
    before = position[:, None] + torch.arange(-length, 0, device=position.device)  # (batch, length)
    item = tables["interactions/item"][before.clamp_min(0)]
    known = (before >= tables["offset"][user][:, None]) & (item < num_train_items)
    return (item + 1) * known


def targets(tables: dict[str, Tensor], index: EvalIndex) -> Tensor:
    """``(batch, num_targets)`` items held out, -1 pads; a batch of nobody has one column."""
    item = tables["interactions/item"]
    place = torch.arange(max([1, *index.num_targets.tolist()]), device=item.device)  # (num_targets,)
    position = (index.position[:, None] + place).clamp_max(len(item) - 1)
    return item[position].long().masked_fill(place >= index.num_targets[:, None], -1)


def seen(tables: dict[str, Tensor], position: Tensor) -> tuple[Tensor, Tensor]:
    """(row, item) pairs of all earlier interactions of the users at ``position``, each ``(num_seen,)``."""
    start = tables["offset"][tables["interactions/user"][position].long()]  # (batch,)
    count = position - start
    row = torch.repeat_interleave(torch.arange(len(position), device=position.device), count)
    place = torch.arange(len(row), device=position.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
    return row, tables["interactions/item"][start[row] + place].long()
