"""Loaders that yield index tensors; the training loader can stop and resume at any batch."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twotower.data.batches.sequence_order import begins, sequence_order
from twotower.data.batches.windows import WindowOrder
from twotower.errors import UserError, check_choice, check_number
from twotower.types import EvalIndex, TrainIndex


class TrainLoader:
    """Shuffled batches of positions. Order and step seeds follow from (seed, epoch, batch) alone.

    Args:
        position: ``(num_positives,)`` positions of the training interactions.
        user: ``(num_interactions,)`` users of all interactions, sorted; positions index into it.
        positives: ``interactions``: an epoch takes each once, so active users count more.
            ``users``: an epoch draws as many times a user, then one of the user's interactions, so
            all users count equally, as in evaluation. ``sequences``: each interaction once, those
            of a user one after the other, see
            :func:`~twotower.data.batches.sequence_order.sequence_order`.
        batch_size: positives per process and step.
        seed: of order and steps.
        rank: of this process.
        world_size: number of processes.
        shuffle_window: interactions shuffled together, which bounds memory; None: all.
        read_ahead: see :class:`~twotower.data.batches.windows.WindowOrder`.
        history_length: of the sequences.
        min_history: leave out positions with fewer earlier interactions of their user; None: none.

    Raises:
        UserError: for settings that do not go together, and if no position is left.
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
        history_length: int = 0,
        min_history: int | None = None,
    ) -> None:
        check_choice("data.positives", positives, ("interactions", "users", "sequences"))
        check_number("data.batch_size", batch_size, 1)
        check_number("data.min_history", min_history or 0, 0)
        if shuffle_window is not None:
            check_number("data.shuffle_window", shuffle_window, 1)
            if positives != "interactions" or min_history:
                setting = f"positives={positives}" if not min_history else "min_history"
                raise UserError(
                    f"data.{setting} needs all data at once: leave out data.shuffle_window"
                )
        self.positives = positives
        # The order is made on the host, also where tables were moved to a device before.
        position, user = position.cpu(), user.cpu()
        if min_history:
            position = position[_first(position, user) + min_history <= position]
            if not len(position):
                raise UserError(
                    f"data.min_history={min_history} leaves no training interaction: lower it"
                )
        # (num_users,) or (num_sequences,) training interactions of each, in the order of positions
        self.lengths: Tensor | None = None
        if positives == "users":
            users = user[position.long()]  # (num_positives,)
            _, self.lengths = torch.unique_consecutive(users, return_counts=True)
        elif positives == "sequences":
            starts = begins(position, _first(position, user), history_length).nonzero().flatten()
            self.lengths = torch.diff(starts, append=torch.tensor([len(position)]))
        self.position = position
        self.shuffle_window = shuffle_window
        self.read_ahead = read_ahead
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.next_batch = 0
        self.num_passed = 0  # batches since the one before the latest yielded batch
        self.before_next: Callable[[], object] | None = None  # called once, before the next batch
        # called before each batch; trains so many batches elsewhere, of which the last is yielded
        self.train_ahead: Callable[[], int] | None = None
        self._current_order: Tensor | WindowOrder | None = None
        self.sampler = self  # Lightning calls set_epoch of this attribute

    def __len__(self) -> int:
        """Batches per epoch. A last batch with fewer rows than processes is dropped."""
        full, rest = divmod(len(self.position), self.batch_size * self.world_size)
        return full + (rest >= self.world_size)

    def __iter__(self) -> Iterator[TrainIndex]:
        """The rest of the current epoch, or the next epoch if the current one is complete."""
        if self.next_batch >= len(self):
            self.epoch, self.next_batch = self.epoch + 1, 0
        self._current_order = self._order(self._seed(self.epoch))
        while self.next_batch < len(self):
            self.num_passed = self.train_ahead() if self.train_ahead is not None else 1
            # Before the yield, so that a checkpoint after this step resumes with the next one.
            self.next_batch += self.num_passed
            yield self.index(self.next_batch - 1)
            call, self.before_next = self.before_next, None
            if call is not None:
                call()

    def index(self, batch: int) -> TrainIndex:
        """The index of a batch of the current epoch."""
        assert self._current_order is not None
        size = self.batch_size * self.world_size
        rows = self._current_order[batch * size : (batch + 1) * size]
        seed = self._seed(self.epoch, 1 + batch)
        # With a single batch in an epoch no other batch's rows could weigh more.
        is_one_of_many = self.positives == "sequences" and len(self.position) > size
        num_rows = self.batch_size if is_one_of_many else None
        return TrainIndex(self.position[rows].long(), seed, self.rank, self.world_size, num_rows)

    def passed(self, num: int | None = None) -> list[TrainIndex]:
        """The last ``num`` of the ``num_passed`` batches, or all of them."""
        kept = self.num_passed if num is None else min(num, self.num_passed)
        return [self.index(self.next_batch - kept + place) for place in range(kept)]

    @property
    def num_positives_passed(self) -> int:
        """Positives of all processes in the ``num_passed`` batches."""
        size = self.batch_size * self.world_size
        last = min(self.next_batch * size, len(self.position))
        return last - (self.next_batch - self.num_passed) * size

    def _order(self, seed: int) -> Tensor | WindowOrder:
        """``(num_positives,)`` places in ``position``, in the epoch's order."""
        if self.shuffle_window is not None:
            return WindowOrder(len(self.position), self.shuffle_window, seed, self.read_ahead)
        generator = torch.Generator().manual_seed(seed)
        num = len(self.position)
        if self.lengths is None:
            return torch.randperm(num, generator=generator)
        if self.positives == "sequences":
            return sequence_order(self.lengths, self.batch_size, self.world_size, generator)
        user = torch.randint(len(self.lengths), (num,), generator=generator)
        share = torch.rand(num, dtype=torch.float64, generator=generator)
        place = (share * self.lengths[user]).long()  # among the user's own interactions
        return (self.lengths.cumsum(0) - self.lengths)[user] + place

    def most_sequences(self, num: int) -> int:
        """Sequences that may have positions among ``num`` neighbours in the order of any epoch."""
        whole = int(np.searchsorted(self._ends, num, side="right"))
        return min(num, whole + 2, len(self._ends))  # one is cut at each end

    @cached_property
    def _ends(self) -> np.ndarray:
        """``(num_sequences,)`` sums of the smallest lengths, ascending."""
        assert self.lengths is not None
        return self.lengths.sort().values.cumsum(0).numpy()

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch``, unless it is the current one.

        Lightning does not restore a loader from a checkpoint at the end of an epoch: without this,
        a resumed run would train on epoch 0 again.
        """
        if epoch != self.epoch:
            self.epoch, self.next_batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Current epoch and next batch."""
        return {"epoch": self.epoch, "next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved epoch and batch."""
        self.epoch, self.next_batch = state["epoch"], state["next_batch"]

    def _seed(self, *where: int) -> int:
        return mixed(self.seed, *where)


def _first(position: Tensor, user: Tensor) -> Tensor:
    """``(num,)`` the first position of each position's user."""
    return torch.searchsorted(user, user[position.long()])


def mixed(*numbers: int) -> int:
    """A seed of several numbers: a run's seed, an epoch and a step.

    SeedSequence ignores trailing zeros: steps are counted from 1, as 0 would give the seed of the
    epoch's order.
    """
    return int(np.random.SeedSequence(list(numbers)).generate_state(1)[0])


class EvalLoader:
    """Users with held-out interactions in order, each once over all processes.

    All processes have the same number of batches, as lookups in sharded tables need all of them. So
    a process's last batch may be empty.

    Args:
        position: ``(num_users,)`` positions of the users' first targets.
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
        self.position = position[rank::world_size]  # views: the whole may be mapped from a file
        self.num_targets = num_targets[rank::world_size]
        self.batch_size = batch_size
        self.most = max(1, -(-len(position) // world_size))  # users of process 0, with the most

    def __len__(self) -> int:
        """Batches of this process."""
        return -(-self.most // self.batch_size)

    def __iter__(self) -> Iterator[EvalIndex]:
        """Each batch once."""
        for start in range(0, self.most, self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield EvalIndex(self.position[rows].long(), self.num_targets[rows].long())
