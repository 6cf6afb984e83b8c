"""Gathers targets, seen items and groups for positions of interactions.

Interactions are sorted by user and time. Tables may stay in the host's memory or on disk, while
indices and results are on the device.
"""

import torch
from torch import Tensor

from twotower.data.prepare.options import GROUPS
from twotower.errors import UserError
from twotower.types import EvalIndex, Schema

MASK_SEEN = (True, False, "except_targets")  # values of data.mask_seen, see conf/data/base.yaml
PAIR = 1 << 32  # more than the number of items: row * PAIR + item is unique

# Tables that grow with users and interactions.
STAYING = ("interactions/", "context/", "position/", "targets/", "offset", "user/", "latent/user")


def take(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``, on the device of the index."""
    return table[index.to(table.device)].to(index.device)


def take_known(tables: dict[str, Tensor], name: str, index: Tensor) -> Tensor | None:
    """:func:`take` of a table that only some data have, whole numbers as int64; else None."""
    if name not in tables:
        return None
    found = take(tables[name], index)
    return found if found.is_floating_point() else found.long()


def moved(
    tables: dict[str, Tensor], device: torch.device, without_large: bool
) -> dict[str, Tensor]:
    """The tables on a device; with ``without_large``, large ones stay where they are."""
    stay = STAYING if without_large else ()
    return {
        name: table
        if name.startswith(stay) or (without_large and _is_vectors(name, table))
        else table.to(device)
        for name, table in tables.items()
    }


def _is_vectors(name: str, table: Tensor) -> bool:
    return name.startswith("item/") and table.is_floating_point() and table.dim() == 2


def touch(tables: dict[str, Tensor], first: int, last: int) -> None:
    """Read the rows of training positions ``first`` to ``last - 1`` into the page cache.

    Positions ascend, so these rows are contiguous in every table.
    """
    position = tables["position/train"][first:last]
    start, end = int(position[0]), int(position[-1]) + 1
    user = tables["interactions/user"][[start, end - 1]].tolist()
    position.sum()
    for name, table in tables.items():
        if name.startswith(("interactions/", "context/")):
            table[start:end].sum()
        elif name.startswith("user/"):
            table[user[0] : user[1] + 1].sum()


def train_rows(tables: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """``(num_interactions,)`` users and items of the training part, on the tables' device."""
    position = tables["position/train"].long()
    return tables["interactions/user"][position], tables["interactions/item"][position]


def targets(tables: dict[str, Tensor], index: EvalIndex) -> Tensor:
    """``(batch, num_targets)`` distinct held-out items of each user, the first one in column 0.

    -1 pads and replaces repeated items: a user who views and then buys an item has one target. An
    empty batch has one column.
    """
    item = tables["interactions/item"]
    most = max([1, *index.num_targets.tolist()])
    place = torch.arange(most, device=index.position.device)  # (num_targets,)
    position = (index.position[:, None] + place).clamp_max(len(item) - 1)
    target = take(item, position).long().masked_fill(place >= index.num_targets[:, None], -1)
    return target if target.shape[1] == 1 else target.masked_fill(is_again(target), -1)


def is_again(values: Tensor) -> Tensor:
    """``(batch, num_values)``, True where the row has the same value further left."""
    value, place = values.sort(dim=1, stable=True)
    same = torch.zeros_like(value, dtype=torch.bool)
    same[:, 1:] = value[:, 1:] == value[:, :-1]
    return torch.zeros_like(same).scatter_(1, place, same)


def seen(tables: dict[str, Tensor], position: Tensor) -> tuple[Tensor, Tensor]:
    """(row, item) pairs of the users' interactions before ``position``, each ``(num_seen,)``."""
    start = take(tables["offset"], take(tables["interactions/user"], position).long())  # (batch,)
    return items_from(tables, start, position - start)


def check_mask_seen(mask_seen: bool | str) -> None:
    """Refuse an unknown value.

    Raises:
        UserError: naming the choices.
    """
    if mask_seen not in MASK_SEEN:
        raise UserError(f"data.mask_seen must be true, false or except_targets, got {mask_seen!r}")


def hidden(
    row: Tensor, item: Tensor, target: Tensor, mask_seen: bool | str
) -> tuple[Tensor, Tensor]:
    """Seen items that are masked, in evaluation and in serving.

    Args:
        row: ``(num_seen,)`` users of the pairs, ascending rows of ``target``.
        item: ``(num_seen,)`` their seen items.
        target: ``(batch, num_targets)`` held-out items, -1 pads; no columns if there are none.
        mask_seen: one of :data:`MASK_SEEN`.

    Returns:
        The masked pairs, in the given order.
    """
    if mask_seen != "except_targets":
        return (row, item) if mask_seen else (row[:0], item[:0])
    target_row = torch.arange(len(target), device=target.device)[:, None]
    spared = torch.isin(row * PAIR + item, (target_row * PAIR + target)[target >= 0])
    return row[~spared], item[~spared]


def items_from(tables: dict[str, Tensor], start: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """(row, item) of the ``count`` interactions from position ``start``, for each row.

    Args:
        tables: of the data module.
        start: ``(num,)``.
        count: ``(num,)``.

    Returns:
        Rows and items, each ``(count.sum(),)``.
    """
    row, place = repeated(count)
    return row, take(tables["interactions/item"], start[row] + place).long()


def repeated(count: Tensor) -> tuple[Tensor, Tensor]:
    """Each row ``count`` times.

    Args:
        count: ``(num,)``.

    Returns:
        Rows, and numbers ``0 … count - 1`` within each row; both ``(count.sum(),)``.
    """
    row = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    first = count.cumsum(0) - count  # (num,)
    return row, torch.arange(len(row), device=count.device) - first[row]


def groups(
    tables: dict[str, Tensor], target: Tensor, user: Tensor, schema: Schema, num_train_users: int
) -> Tensor:
    """Groups of each target, in the order of the data module's ``group_names``.

    Args:
        tables: of the data module.
        target: ``(batch, num_targets)`` items, -1 pads.
        user: ``(batch,)``.
        schema: of the data.
        num_train_users: users from this index on are new.

    Returns:
        ``(batch, num_targets, num_groups)``.
    """
    known, cold = target >= 0, target >= schema.num_train_items
    by_category = [known & (tables["group"][target] == column) for column in range(len(GROUPS))]
    has_cold = schema.num_items > schema.num_train_items  # else warm would be the same as all
    warm = known & ~cold & has_cold
    cold_user = known & (user >= num_train_users)[:, None]
    return torch.stack([known, *by_category, warm, cold, cold_user], 2)
