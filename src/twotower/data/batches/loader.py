"""The loader: yields index tensors, nothing else; knows where it is, so that a run can stop and go on anywhere."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twotower.data.batches.windows import WindowOrder
from twotower.errors import UserError, check_choice, check_number
from twotower.types import EvalIndex, TrainIndex


class TrainLoader:
    """Shuffled batches of positions. Order and step seeds follow from (seed, epoch, batch) alone.

    Args:
        position: ``(num_positives,)`` positions of the training interactions.
        user: ``(num_interactions,)`` users of all interactions, which positions point into; equal ones stand together.
        positives: ``interactions``: an epoch takes each once, so that active users count for more. ``users``: it draws as many
            times a user, then one of the user's interactions, so that users count alike, as they do in evaluation.
        batch_size: positives per process and step.
        seed: of order and steps.
        rank: of this process.
        world_size: number of processes.
        shuffle_window: interactions shuffled together, so that memory does not grow with them; None: all.
        read_ahead: see :class:`~twotower.data.batches.windows.WindowOrder`.
    """

    def __init__(
        self,
        position: Tensor,
        user: Tensor,
        positives: str,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle_window: int | None = None,
        read_ahead: Callable[[int, int], None] = lambda first, last: None,
    ) -> None:
        check_choice("data.positives", positives, ("interactions", "users"))
        check_number("data.batch_size", batch_size, 1)
        by_user = positives == "users"
        if shuffle_window is not None:
            check_number("data.shuffle_window", shuffle_window, 1)
            if by_user:
                raise UserError(
                    "data.positives=users draws from all data at once: leave out data.shuffle_window"
                )
        self.position = position
        self.shuffle_window = shuffle_window
        self.read_ahead = read_ahead
        self.run_lengths = (
            torch.unique_consecutive(user[position.long()], return_counts=True)[1]
            if by_user
            else None
        )
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.next_batch = 0
        self.last: TrainIndex | None = None  # what was yielded last
        self.before_next: Callable[[], object] | None = None  # called once, before the next batch
        self.sampler = self  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        """Batches per epoch. A last batch with fewer rows than processes is dropped."""
        full, rest = divmod(len(self.position), self.batch_size * self.world_size)
        return full + (rest >= self.world_size)

    def __iter__(self) -> Iterator[TrainIndex]:
        """The rest of the current epoch, or the next one if that is done."""
        if self.next_batch >= len(self):
            self.epoch, self.next_batch = self.epoch + 1, 0
        order = self._order(self._seed(self.epoch))
        size = self.batch_size * self.world_size
        while self.next_batch < len(self):
            batch = self.next_batch
            rows = order[batch * size : (batch + 1) * size]
            self.next_batch += (
                1  # before the yield: a checkpoint after this step resumes with the next
            )
            seed = self._seed(self.epoch, 1 + batch)
            self.last = TrainIndex(self.position[rows].long(), seed, self.rank, self.world_size)
            yield self.last
            call, self.before_next = self.before_next, None
            if call is not None:
                call()

    def _order(self, seed: int) -> Tensor | WindowOrder:
        """``(num_positives,)`` places in ``position``, in the epoch's order."""
        if self.shuffle_window is not None:
            return WindowOrder(len(self.position), self.shuffle_window, seed, self.read_ahead)
        generator = torch.Generator().manual_seed(seed)
        if self.run_lengths is None:
            return torch.randperm(len(self.position), generator=generator)
        user = torch.randint(len(self.run_lengths), (len(self.position),), generator=generator)
        place = (
            torch.rand(len(user), dtype=torch.float64, generator=generator) * self.run_lengths[user]
        )
        return (self.run_lengths.cumsum(0) - self.run_lengths)[user] + place.long()

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch``, unless the loader is in it.

        Lightning does not restore a loader from a checkpoint of an epoch's end: without this, epoch 0 would be trained on again.
        """
        if epoch != self.epoch:
            self.epoch, self.next_batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is."""
        return {"epoch": self.epoch, "next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self.next_batch = state["epoch"], state["next_batch"]

    def _seed(self, *where: int) -> int:
        """A last zero is no entropy: ``[seed, epoch, 0]`` is ``[seed, epoch]``, the order's own."""
        return int(np.random.SeedSequence([self.seed, *where]).generate_state(1)[0])


class EvalLoader:
    """Users with held-out interactions in order; every user once, whatever the number of processes.

    All processes have the same number of batches, as they may look rows up in one another: the last one may be empty.

    Args:
        position: ``(num_users,)`` positions of their first targets.
        num_targets: ``(num_users,)``.
        batch_size: users per step.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        position: Tensor,
        num_targets: Tensor,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_number("data.eval_batch_size", batch_size, 1)
        most = -(-len(position) // world_size)  # users of the first process
        batches = [slice(start, start + batch_size) for start in range(0, max(1, most), batch_size)]
        self.position, self.num_targets = (
            [own[batch] for batch in batches]
            for own in (position[rank::world_size], num_targets[rank::world_size])
        )

    def __len__(self) -> int:
        """Batches of this process."""
        return len(self.position)

    def __iter__(self) -> Iterator[EvalIndex]:
        """Each batch once."""
        return map(EvalIndex, self.position, self.num_targets)
