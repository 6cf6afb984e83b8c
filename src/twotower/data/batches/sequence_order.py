"""The order of ``data.positives=sequences``: whole sequences, like lengths in the same batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

BATCHES_ALIKE = 8  # batches whose sequences are sorted by length together


def begins(position: Tensor, first: Tensor, length: int) -> Tensor:
    """Where a sequence begins: positions that follow one another share a history.

    A user's sequences are the first ``length`` interactions, then parts of ``length / 2``: each
    position in a later part has at least that many items before it in a history of ``length``.

    Args:
        position: ``(num,)`` positions of interactions.
        first: ``(num,)`` the first position of each one's user.
        length: of a history.

    Returns:
        ``(num,)`` True at the first position of a sequence.
    """
    place, half = position - first, max(1, length // 2)
    part = torch.where(place < length, 0, 1 + (place - length) // half)
    follows = (position[1:] == position[:-1] + 1) & (first[1:] == first[:-1])
    return F.pad(~(follows & (part[1:] == part[:-1])), (1, 0), value=True)


def sequence_order(
    lengths: Tensor, batch_size: int, world_size: int, generator: torch.Generator
) -> Tensor:
    """Places of positions in an epoch's order, those of a sequence one after the other.

    Shuffled sequences are sorted by length in windows of a few batches, and the batches are
    shuffled: an encoder has little padding to read, and a batch has random sequences of its length.
    A sequence that a batch does not hold to its end goes on in another one.

    Args:
        lengths: ``(num_sequences,)`` positions of each sequence.
        batch_size: positives per process and step.
        world_size: number of processes, of which each gets whole sequences.
        generator: of the order.

    Returns:
        ``(lengths.sum(),)``; the last batch, which may be smaller, is that of the last window.
    """
    size = batch_size * world_size
    first = lengths.cumsum(0) - lengths  # (num_sequences,)
    order = torch.randperm(len(lengths), generator=generator)
    window = (lengths[order].cumsum(0) - 1) // (BATCHES_ALIKE * size)
    # Ascending and descending in turn: neighbours at the border of two windows are alike, too.
    by_length = torch.where(window % 2 == 0, lengths[order], -lengths[order])
    span = 2 * int(lengths.max()) + 1  # one more than two keys of a window can differ by
    order = order[(window * span + by_length).argsort(stable=True)]
    ordered = lengths[order]
    shift = first[order] - (ordered.cumsum(0) - ordered)  # from the new place to the old one
    places = torch.repeat_interleave(shift, ordered) + torch.arange(int(lengths.sum()))
    num_full = len(places) // size
    full, last = places[: num_full * size].view(num_full, size), places[num_full * size :]
    full = full[torch.randperm(num_full, generator=generator)][:, _dealt(size, world_size)]
    return torch.cat([full.flatten(), last[_dealt(len(last), world_size)]])


def _dealt(size: int, world_size: int) -> Tensor:
    """``(size,)`` rows in the order in which process ``r`` finds rows without gaps as its own.

    Its rows are ``r, r + world_size, …`` of a batch, see :class:`~twotower.types.TrainIndex`.
    """
    row = torch.arange(size)
    rank = row % world_size
    start = rank * (size // world_size) + rank.clamp_max(size % world_size)
    return start + row // world_size
