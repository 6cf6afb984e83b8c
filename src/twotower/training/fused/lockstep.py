"""Runs jobs in threads of which one works at a time; their training steps are taken together.

Each job is an ordinary run, from its start to its ``metrics.json``. Where it needs its next steps
it waits, until all others wait too or have ended. So a job that stops early or fails just leaves,
and one that is resumed from an earlier step than the others catches up first.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.callbacks import Callback

from twotower import signals
from twotower.training.fused.epochs import Epochs
from twotower.training.fused.limits import why_not_here
from twotower.training.fused.steps import NotProvedError, Steps
from twotower.training.fused.whole_steps import Member


def current() -> "Lockstep | None":
    """The lockstep that this thread's job belongs to; None outside of one."""
    worker = threading.current_thread()
    return worker.lockstep if isinstance(worker, _Worker) else None


def num_runs() -> int:
    """How many runs are trained in one pass with that of this thread, itself included."""
    worker = threading.current_thread()
    if isinstance(worker, _Worker) and not worker.is_alone:
        return worker.lockstep.num_runs
    return 1


def is_first() -> bool:
    """Is this thread's run the first of its pass, or alone? What holds for all is said once."""
    worker = threading.current_thread()
    return not isinstance(worker, _Worker) or worker.number == 0


def callbacks() -> list[Callback]:
    """Callbacks that a job's trainer needs to take part."""
    lockstep = current()
    return [] if lockstep is None else [TakesPart(lockstep)]


def run_together(jobs: Sequence[Callable[[], None]], num_runs: int) -> None:
    """Run jobs that train in one pass; returns when all have ended.

    Args:
        jobs: each calls ``trainer.fit`` at most once, with :func:`callbacks`; what it raises is
            raised here when all have ended.
        num_runs: of the pass, with those that had ended before.

    Raises:
        Stopped: after SIGTERM or Ctrl-C, when all jobs have saved their state.
    """
    Lockstep(num_runs).run(jobs)


class Lockstep:
    """Jobs that take their steps together.

    Args:
        num_runs: how many, for their records.
    """

    def __init__(self, num_runs: int) -> None:
        self.num_runs = num_runs
        self.steps = Steps()
        self.epochs = Epochs()
        self.waiting: dict[Member, _Worker] = {}
        self.back = threading.Semaphore(0)  # released when a worker waits or has ended

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """See :func:`run_together`."""
        workers: list[_Worker] = []
        # each job saves its state and ends when it has its turn
        signals.defer(lambda signum: None)
        try:
            for job in jobs:
                if signals.asked():
                    break
                workers.append(_Worker(self, job, len(workers)))
                self._give_turn(workers[-1])
            while self.waiting:
                self._train()
        finally:
            self.epochs.hide()
            signals.defer(None)
        signals.raise_if_asked()
        for worker in workers:
            if worker.error is not None:
                raise worker.error

    def train(self, member: Member) -> None:
        """Wait in a job's thread until its next steps are trained."""
        worker = threading.current_thread()
        assert isinstance(worker, _Worker)
        self.waiting[member] = worker
        worker.wait()
        if worker.failure is not None:
            raise worker.failure

    def _train(self) -> None:
        """Train the jobs that are behind, or all, and let them go on one after the other."""
        waiting = sorted(self.waiting, key=lambda member: member.number)
        place = min(member.place for member in waiting)
        members = [member for member in waiting if member.place == place]
        self.epochs.show(members)
        failure: Exception | None = None
        try:
            reason = ""
            try:
                self.steps.train(members, waiting)
            except NotProvedError as error:
                reason = str(error)
            if reason:  # no longer in ``except``: the error keeps the weights of its stack
                print(f"steps are not recorded: {reason}", flush=True)
                self.steps.record = False
                self.steps.train(members, waiting)
        except Exception as error:  # of all of them
            failure = error
        for member in members:
            worker = self.waiting.pop(member)
            worker.failure = failure
            self._give_turn(worker)

    def _give_turn(self, worker: "_Worker") -> None:
        before = HydraConfig.instance().cfg
        HydraConfig.instance().cfg = worker.hydra
        worker.turn.release()
        self.back.acquire()
        worker.hydra, HydraConfig.instance().cfg = HydraConfig.instance().cfg, before


class _Worker(threading.Thread):
    """The thread of a job."""

    def __init__(self, lockstep: Lockstep, job: Callable[[], None], number: int) -> None:
        super().__init__(daemon=True)  # a second signal ends the process at once
        self.lockstep = lockstep
        self.job = job
        self.number = number
        self.is_alone = False  # True: the run cannot take part
        self.turn = threading.Semaphore(0)
        self.hydra: Any = HydraConfig.instance().cfg  # Hydra has one config for all threads
        self.failure: Exception | None = None  # of its steps
        self.error: BaseException | None = None  # that ended it
        self.start()

    def run(self) -> None:
        self.turn.acquire()
        try:
            self.job()
        except BaseException as error:
            self.error = error
        finally:
            self.lockstep.back.release()

    def wait(self) -> None:
        """Give the turn back until it comes again."""
        self.lockstep.back.release()
        self.turn.acquire()


class TakesPart(Callback):
    """Lets a lockstep train the steps of a run."""

    def __init__(self, lockstep: Lockstep) -> None:
        self.lockstep = lockstep
        self.member: Member | None = None
        self.saved = {"row": 0, "num_rows": 0}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join, or train alone before the other runs go on if the run cannot take part."""
        worker = threading.current_thread()
        assert isinstance(worker, _Worker)
        if reason := why_not_here(trainer):
            print(f"trained alone: {reason}", flush=True)
            worker.is_alone = True
            return
        self.member = Member(trainer, self.lockstep.train, worker.number, **self.saved)
        self.member.join()

    def state_dict(self) -> dict[str, int]:
        """The place in the stack, on which dropout depends."""
        member = self.member
        return self.saved if member is None else {"row": member.row, "num_rows": member.num_rows}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take the place that the checkpoint had."""
        self.saved = dict(state_dict)
