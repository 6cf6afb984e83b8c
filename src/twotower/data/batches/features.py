"""Inputs of the towers at positions of interactions: features, histories, context."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from twotower.data.batches.rows import take
from twotower.data.batches.sequence_order import begins
from twotower.layers.history import Sequences
from twotower.types import Schema

OF_THE_EVENT = ("behaviour", "time_gap")  # features of events that are not those of their items


def history(
    tables: dict[str, Tensor], position: Tensor, user: Tensor, length: int, num_train_items: int
) -> Tensor:
    """``item_id`` features of the interactions before ``position``: ``(batch, length)``, 0 pads."""
    before = position[:, None] + torch.arange(-length, 0, device=position.device)  # (batch, length)
    item = take(tables["interactions/item"], before.clamp_min(0))
    known = (before >= take(tables["offset"], user)[:, None]) & (item < num_train_items)
    return (item + 1) * known


def sequences(
    tables: dict[str, Tensor],
    position: Tensor,
    user: Tensor,
    length: int,
    num_train_items: int,
    room: int | None = None,
) -> Sequences:
    """The histories of ``(batch,)`` positions, where those that follow one another share one.

    A sequence is the history of its last position, see :func:`begins`.

    Args:
        tables: of the data module.
        position: ``(batch,)``.
        user: ``(batch,)``.
        length: of a history.
        num_train_items: other items are unknown.
        room: number of sequences returned, at least that of the positions; the last one fills what
            is left. The shape then does not depend on values. None: no more than there are.
    """
    row = begins(position, take(tables["offset"], user), length).cumsum(0) - 1  # (batch,)
    if room is None:
        room = int(row[-1]) + 1
    number = torch.arange(room, device=row.device)
    last = torch.searchsorted(row, number, right=True) - 1  # (num_sequences,) in the batch
    end = position[last]
    index = history(tables, end, user[last], length, num_train_items)
    return Sequences(index, row, length - 1 - (end[row] - position))


def places(history: Tensor | Sequences, position: Tensor, length: int) -> Tensor:
    """Positions of a history's items, of any interaction at padding: ``(num_rows, length)``.

    Args:
        history: of :func:`history` or :func:`sequences`.
        position: ``(batch,)`` it was made for.
        length: of the history.
    """
    if isinstance(history, Sequences):  # all positions of a sequence agree on where it ends
        end = position + length - 1 - history.place
        position = end.new_zeros(len(history.items)).scatter(0, history.row, end)
    before = position[:, None] + torch.arange(-length, 0, device=position.device)
    return before.clamp_min(0)


def events(
    tables: dict[str, Tensor], name: str, history: Tensor | Sequences, place: Tensor
) -> Tensor:
    """A feature of a history's events, see :func:`masked`.

    Args:
        tables: of the data module.
        name: without ``history_``.
        history: of :func:`history` or :func:`sequences`.
        place: of :func:`places`.
    """
    if name in OF_THE_EVENT:
        value = take(tables[f"interactions/{name}"], place).int() + (name == "behaviour")
    else:
        value = item_labels(tables, name, take(tables["interactions/item"], place))
    return masked(value, history.items if isinstance(history, Sequences) else history)


def item_labels(tables: dict[str, Tensor], name: str, item: Tensor) -> Tensor:
    """Labels of items as a history has them: ``(...)``, or ``(..., width)`` of several each."""
    if name == "category":
        return take(tables["category"], item) + 1
    return take(tables[f"item/{name}"], item)


def events_of_items(tables: dict[str, Tensor], name: str, history: Tensor, items: Tensor) -> Tensor:
    """A feature of the events of one history that is given by its items.

    Labels of the items are known; what the user did and when is not, 0.

    Args:
        tables: of the data module.
        name: without ``history_``.
        history: ``(1, length)`` of the last items, see :func:`history`.
        items: ``(num_items,)`` corpus indices, oldest first.
    """
    if name in OF_THE_EVENT:
        return torch.zeros_like(history)
    last = items[-history.shape[1] :]
    row = torch.zeros_like(history)
    row[0, history.shape[1] - len(last) :] = last
    return masked(item_labels(tables, name, row), history)


def masked(value: Tensor, history: Tensor) -> Tensor:
    """Events ``(num_rows, length)`` or ``(num_rows, length, width)``, 0 at padding."""
    return value * (history > 0).view(*history.shape, *[1] * (value.dim() - 2))


def user_features(
    tables: dict[str, Tensor],
    schema: Schema,
    history_length: int,
    position: Tensor,
    user: Tensor,
    read: Callable[..., Any],
) -> dict[str, Tensor]:
    """Features of users ``(batch,)`` just before ``position``, each ``(batch, ...)``.

    ``read`` is :func:`history` or :func:`sequences`. Where the data keep times there is also
    ``history_time``, seconds of the history's items, of any interaction at padding.
    """
    features: dict[str, Any] = {}
    of_events = [feature.name for feature in schema.user if feature.kind == "event"]
    for feature in schema.user:
        if feature.kind == "event":  # with the history
            continue
        if feature.kind == "history":
            values = read(tables, position, user, history_length, schema.num_train_items)
            if of_events or "interactions/time" in tables:
                place = places(values, position, history_length)
            if "interactions/time" in tables:
                features["history_time"] = take(tables["interactions/time"], place)
            for name in of_events:
                features[name] = events(tables, name.removeprefix("history_"), values, place)
        elif feature.name in schema.context:
            values = context(tables, feature.name, position, user)
        else:
            values = take(tables[f"user/{feature.name}"], user)
        features[feature.name] = values
    return features


def context(tables: dict[str, Tensor], name: str, position: Tensor, user: Tensor) -> Tensor:
    """A feature of the interactions at ``position``; unknown (0) after the user's last one."""
    owner = tables["interactions/user"]
    place = position.clamp_max(len(owner) - 1)
    known = (position < len(owner)) & (take(owner, place) == user)
    value = take(tables[f"context/{name}"], place)
    return value * known.view(-1, *[1] * (value.dim() - 1))


def item_features(tables: dict[str, Tensor], schema: Schema, item: Tensor) -> dict[str, Tensor]:
    """Features of corpus indices ``(batch,)``, each ``(batch, ...)``."""
    return {feature.name: take(tables[f"item/{feature.name}"], item) for feature in schema.item}


def with_truth(
    tables: dict[str, Tensor], features: dict[str, Tensor], side: str, index: Tensor
) -> dict[str, Tensor]:
    """Add the planted truth of synthetic data, for the oracle."""
    truth = tables.get(f"latent/{side}")
    return features if truth is None else {**features, "latent": take(truth, index)}
