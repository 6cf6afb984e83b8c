"""What history encoders share: positions in sequences, the order of items, passes by length."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.layers.batched import is_batched

ROWS_ALIKE = 128  # histories of similar length per pass on a CPU, where the last place is read
PADDING_ALIKE = 128  # places of padding per pass on a CPU, where all places are read


class Sequences(NamedTuple):
    """Histories of a batch whose rows are positions in few sequences, each encoded once.

    Attributes:
        items: ``(num_sequences, length)`` of each, oldest first, 0 pads on the left.
        row: ``(batch,)`` sequence of each position.
        place: ``(batch,)`` place of the item just before it.
    """

    items: Tensor
    row: Tensor
    place: Tensor


def in_passes(
    index: Tensor,
    encode: Callable[[Tensor, int, Tensor | None], Tensor],
    all_places: bool,
    time: Tensor | None = None,
) -> Tensor:
    """Encode histories, on a CPU in passes of similar lengths: each has its longest one's width.

    Args:
        index: ``(batch, length)``, known items at the end.
        encode: is given a part of the rows, without some of the padding, the number of last
            places to read, and the part's times; returns ``(rows, num_places, dim)``.
        all_places: read each place, or the last one only.
        time: ``(batch, length)`` of each item, or None.

    Returns:
        ``(batch, length, dim)`` or ``(batch, 1, dim)``.
    """
    length = index.shape[1]
    # A compiled graph cannot branch on data or on its sizes, and a GPU is fast with the padding.
    branches = not (torch.compiler.is_compiling() or is_batched(index))
    enough = 0 if all_places else ROWS_ALIKE
    if not branches or index.device.type != "cpu" or len(index) <= enough:
        return encode(index, length if all_places else 1, time)
    num, order = (index > 0).sum(1).sort()
    sizes = _sizes(num.tolist()) if all_places else ROWS_ALIKE
    parts = []
    for lengths, rows in zip(num.split(sizes), order.split(sizes), strict=True):
        width = max(1, int(lengths[-1]))
        moments = None if time is None else time[rows, -width:]
        part = encode(index[rows, -width:], width if all_places else 1, moments)
        parts.append(F.pad(part, (0, 0, length - width, 0)) if all_places else part)
    return torch.cat(parts)[order.argsort()]


def _sizes(num: list[int]) -> list[int]:
    """Numbers of histories per pass, such that a pass has few places of padding.

    Args:
        num: items of each history, ascending.
    """
    sizes, padding = [0], 0
    for before, own in zip([0, *num], num, strict=False):
        padding += sizes[-1] * (own - before)  # each history of the pass gets wider
        if padding > PADDING_ALIKE:
            sizes.append(0)
            padding = 0
        sizes[-1] += 1
    return sizes


def known_last(index: Tensor) -> Tensor:
    """``(batch, length)`` with each row's known items moved to its end, without gaps, in order."""
    return index.gather(1, late_last(index > 0))


def known_first(index: Tensor) -> Tensor:
    """``(batch, length)`` with each row's known items at its start, without gaps, in order."""
    return index.gather(1, late_last(index == 0))


def late_last(late: Tensor) -> Tensor:
    """Places of each row's entries in order, those marked ``late`` last: ``(batch, length)``."""
    length = late.shape[1]
    # Distinct keys keep the order: an exported graph has no stable sort.
    return (late * length + torch.arange(length, device=late.device)).argsort(dim=1)
