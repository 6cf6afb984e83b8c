"""Trains members that stand at the same step, as one batched step of all of them."""

import copy
import time
from collections.abc import Sequence

import pytorch_lightning as pl
import torch

from twotower import signals
from twotower.data.batches.loader import mixed
from twotower.errors import UserError
from twotower.training.fused.engine import FusedRuns
from twotower.training.fused.limits import may_record
from twotower.training.fused.proof import prove
from twotower.training.fused.whole_steps import Member, Trained
from twotower.training.task import RetrievalTask
from twotower.types import LossOutput, TrainIndex

PIECE_S = 0.5  # a signal waits about so long
PIECE = 50  # steps at most that are handed to the device without a look at signals


class NotProvedError(UserError):
    """Why recorded steps cannot be trusted."""


class Steps:
    """Keeps the stacked weights of members from one stretch of steps to the next.

    A member's dropout depends on the number of rows of the stack and on its own row. So rows of
    runs that have ended, or that are further on, are filled with copies until an epoch begins.

    Args:
        record: replay recorded steps; None: where the first run is trained on a GPU and allows it.
    """

    def __init__(self, record: bool | None = None) -> None:
        self.record = record
        self.rows: list[Member | None] = []  # of the stack
        self.fused: FusedRuns | None = None

    def train(self, members: Sequence[Member], all_members: Sequence[Member]) -> None:
        """Train a stretch of steps, see :meth:`Member.num_steps`; a signal ends it early.

        Args:
            members: all at the same step.
            all_members: these and the ones that are further on.

        Raises:
            NotProvedError: if recorded steps are not those of each run alone; nothing was trained.
        """
        fused = self._stacked(members, all_members)
        num = min(member.num_steps() for member in members)
        done, length, total = 0, 1, torch.zeros(())
        started = time.perf_counter()
        while done < num and not (done and signals.asked()):
            if done:
                _after_step(members)
            began, length = time.perf_counter(), min(length, num - done)
            first = (members[0].loader.epoch, members[0].loader.next_batch + done)
            fused.train(
                self._indices(members, first[1], length),
                lambda: _after_step(members),
                self._dropout_seeds(*first, length),
            )
            done, total = done + length, total.to(fused.mean_total) + fused.mean_total * length
            is_slow = (time.perf_counter() - began) / length * PIECE > PIECE_S
            length = 1 if is_slow else PIECE
        if fused.device.type == "cuda":
            torch.cuda.synchronize(fused.device)
        seconds = time.perf_counter() - started
        for member in members:
            row = member.row
            terms = {name: fused.terms[name][row] for name in fused.names_of_terms(row)}
            output = LossOutput(fused.total[row], terms)
            member.trained = Trained(done, output, total[row] / done, seconds)

    def _stacked(self, members: Sequence[Member], all_members: Sequence[Member]) -> FusedRuns:
        """The stack of the members, made anew if it lacks one or its rows have changed."""
        place_rows(members, all_members)
        rows: list[Member | None] = [None] * members[0].num_rows
        for member in members:
            rows[member.row] = member
        same = [
            before is row or (row is None and before not in all_members)
            for before, row in zip(self.rows, rows, strict=False)
        ]
        if self.fused is None or len(rows) != len(self.rows) or not all(same):
            self.fused = None  # its memory first
            self.rows = rows
            if self.record is None:
                self.record = may_record(members[0].trainer)
            fused = _stack(rows, self.record)
            if self.record and (reason := prove(fused)):
                raise NotProvedError(reason)
            self.fused = fused
        return self.fused

    def _indices(self, members: Sequence[Member], first: int, num: int) -> list[list[TrainIndex]]:
        """The index of each seed of the stack, for ``num`` batches of the epoch."""
        assert self.fused is not None
        loaders = {member.data.seed: member.loader for member in reversed(members)}
        # rows of a seed without members train with any batch
        sources = [loaders.get(seed, members[0].loader) for seed in self.fused.seeds]
        return [[loader.index(first + step) for loader in sources] for step in range(num)]

    def _dropout_seeds(self, epoch: int, first: int, num: int) -> list[int] | None:
        """Of ``num`` batches: the same whichever runs are left, and what one run draws alone."""
        if len(self.rows) == 1:
            return None
        return [mixed(epoch, 1 + first + step) for step in range(num)]


def place_rows(members: Sequence[Member], all_members: Sequence[Member]) -> None:
    """Give members their rows where they have none, or at most half of the rows have members.

    Rows change at the begin of an epoch only: there, a sweep that was killed and started again
    has as many members as one that was not.

    Args:
        members: all at the same step, in order.
        all_members: these and the ones that are further on, in order.
    """
    places = {(member.num_rows, member.row) for member in members}
    is_clear = len(places) == len(members) and len({num for num, _ in places}) == 1
    num_rows = members[0].num_rows
    is_begin = members[0].place[1] == 0
    if is_clear and num_rows and not (is_begin and 2 * len(all_members) <= num_rows):
        return
    for row, member in enumerate(all_members):
        if member in members:
            member.row, member.num_rows = row, len(all_members)


def _stack(rows: Sequence[Member | None], record: bool) -> FusedRuns:
    """The stacked weights of members, which have loaded their state, and copies of the first."""
    first = next(member for member in rows if member is not None)
    task, trainer = first.task, first.trainer
    assert task.optimizer is not None
    tasks, optimizers = [], []
    for member in rows:
        if member is not None:
            tasks.append(member.task)
            optimizers.append(member.optimizer)
        else:
            parts = copy.deepcopy((task.model, task.loss))
            tasks.append(RetrievalTask(*parts, None, [], (), None))
            optimizer = task.optimizer(tasks[-1].model.parameters())
            optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
            optimizers.append(optimizer)
    return FusedRuns(
        tasks,
        [(member or first).data for member in rows],
        optimizers,
        context=trainer.precision_plugin.train_step_context,
        clip=clip_of(trainer),
        record=record,
    )


def clip_of(trainer: pl.Trainer) -> tuple[float, str] | None:
    """Largest gradient of a training and how it is measured; None: it has no limit."""
    if not trainer.gradient_clip_val:
        return None
    is_value = trainer.gradient_clip_algorithm == "value"
    return float(trainer.gradient_clip_val), "value" if is_value else "norm"


def _after_step(members: Sequence[Member]) -> None:
    for member in members:
        member.after_step()
