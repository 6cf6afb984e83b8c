"""What stands around some positions of the interactions, which are sorted by user and time: histories, targets, what was seen.

Tables may stay in the host's memory, or on its disk, while indices and what is taken are on the device.
"""

import torch
from torch import Tensor

from twotower.data.prepare.prepare import GROUPS
from twotower.errors import UserError
from twotower.types import EvalIndex, Schema

MASK_SEEN = (True, False, "except_targets")  # values of data.mask_seen, see conf/data/base.yaml
PAIR = 1 << 32  # more than there are items: makes one number of a row and an item

# what grows with users and interactions
STAYING = ("interactions/", "position/", "targets/", "offset", "user/", "latent/user")


def take(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``, on the device of the index."""
    return table[index.to(table.device)].to(index.device)


def touch(tables: dict[str, Tensor], first: int, last: int) -> None:
    """Read what belongs to training positions number ``first`` to ``last - 1``, so that the page cache has it.

    Their positions ascend, so in every table it is one stretch.
    """
    position = tables["position/train"][first:last]
    start, end = int(position[0]), int(position[-1]) + 1
    user = tables["interactions/user"][[start, end - 1]].tolist()
    position.sum()
    for name, table in tables.items():
        if name.startswith("interactions/"):
            table[start:end].sum()
        elif name.startswith("user/"):
            table[user[0] : user[1] + 1].sum()


def history(
    tables: dict[str, Tensor], position: Tensor, user: Tensor, length: int, num_train_items: int
) -> Tensor:
    """``item_id`` features of the interactions just before ``position``: ``(batch, length)``, 0 is padding."""
    before = position[:, None] + torch.arange(-length, 0, device=position.device)  # (batch, length)
    item = take(tables["interactions/item"], before.clamp_min(0))
    known = (before >= take(tables["offset"], user)[:, None]) & (item < num_train_items)
    return (item + 1) * known


def targets(tables: dict[str, Tensor], index: EvalIndex) -> Tensor:
    """``(batch, num_targets)`` distinct items held out of each user, the first one in column 0.

    -1 pads, and stands in the place of an item that stands further left: a user who views and then
    buys an item has one target. A batch of nobody has one column.
    """
    item = tables["interactions/item"]
    place = torch.arange(
        max([1, *index.num_targets.tolist()]), device=index.position.device
    )  # (num_targets,)
    position = (index.position[:, None] + place).clamp_max(len(item) - 1)
    target = take(item, position).long().masked_fill(place >= index.num_targets[:, None], -1)
    return target if target.shape[1] == 1 else target.masked_fill(_repeated(target), -1)


def _repeated(target: Tensor) -> Tensor:
    """``(batch, num_targets)`` True where the row has the same value further left."""
    value, place = target.sort(dim=1, stable=True)
    same = torch.zeros_like(value, dtype=torch.bool)
    same[:, 1:] = value[:, 1:] == value[:, :-1]
    return torch.zeros_like(same).scatter_(1, place, same)


def seen(tables: dict[str, Tensor], position: Tensor) -> tuple[Tensor, Tensor]:
    """(row, item) pairs of all earlier interactions of the users at ``position``, each ``(num_seen,)``."""
    start = take(tables["offset"], take(tables["interactions/user"], position).long())  # (batch,)
    return items_from(tables, start, position - start)


def check_mask_seen(mask_seen: bool | str) -> None:
    """Refuse an unknown value.

    Raises:
        UserError: naming the known ones.
    """
    if mask_seen not in MASK_SEEN:
        raise UserError(f"data.mask_seen must be true, false or except_targets, got {mask_seen!r}")


def hidden(
    row: Tensor, item: Tensor, target: Tensor, mask_seen: bool | str
) -> tuple[Tensor, Tensor]:
    """The one rule of evaluation and serving: which items that users have seen no list shows them.

    Args:
        row: ``(num_seen,)`` users of the pairs, ascending rows of ``target``.
        item: ``(num_seen,)`` what they have seen.
        target: ``(batch, num_targets)`` held-out items, -1 pads; no columns where none are known.
        mask_seen: one of :data:`MASK_SEEN`.

    Returns:
        The pairs that are hidden, in their order.
    """
    if mask_seen != "except_targets":
        return (row, item) if mask_seen else (row[:0], item[:0])
    target_row = torch.arange(len(target), device=target.device)[:, None]
    spared = torch.isin(row * PAIR + item, (target_row * PAIR + target)[target >= 0])
    return row[~spared], item[~spared]


def items_from(tables: dict[str, Tensor], start: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """(row, item) of ``count`` interactions from position ``start`` on, for each row; each ``(count.sum(),)``."""
    row = torch.repeat_interleave(torch.arange(len(start), device=start.device), count)
    place = torch.arange(len(row), device=start.device) - torch.repeat_interleave(
        count.cumsum(0) - count, count
    )
    return row, take(tables["interactions/item"], start[row] + place).long()


def groups(
    tables: dict[str, Tensor], target: Tensor, user: Tensor, schema: Schema, num_train_users: int
) -> Tensor:
    """Which groups each target counts in, in the order of the data module's ``group_names``.

    Args:
        tables: of the data module.
        target: ``(batch, num_targets)`` items, -1 pads.
        user: ``(batch,)``.
        schema: of the data.
        num_train_users: users from this number on are new.

    Returns:
        ``(batch, num_targets, num_groups)``.
    """
    known, cold = target >= 0, target >= schema.num_train_items
    by_category = [known & (tables["group"][target] == column) for column in range(len(GROUPS))]
    warm = (
        known & ~cold if schema.num_items > schema.num_train_items else torch.zeros_like(known)
    )  # else all are
    cold_user = known & (user >= num_train_users)[:, None]
    return torch.stack([known, *by_category, warm, cold, cold_user], 2)
