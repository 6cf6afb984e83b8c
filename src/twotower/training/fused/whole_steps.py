"""Connects a Lightning run to steps that are trained outside of Lightning's loop.

Lightning sees only the last step of a stretch: before it gets its next batch, all steps up to one
that something happens after (a row of the log, a checkpoint, a validation, the end of the epoch)
are trained at once, and its counters are advanced. Callbacks, loggers and checkpoints work as in
any run.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.optim import Optimizer

from twotower.data.batches.loader import TrainLoader
from twotower.data.datamodule import RetrievalDataModule
from twotower.training.average import Average
from twotower.training.task import RetrievalTask
from twotower.types import LossOutput

MOST = 1_000  # steps of a stretch
GRADIENT_HOOKS = (
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
)


class Trained(NamedTuple):
    """Steps that were trained for a run.

    Attributes:
        num: how many.
        output: of the last one, without gradients.
        mean_loss: of all of them, a scalar.
        seconds: that they took, for all runs of the pass.
    """

    num: int
    output: LossOutput
    mean_loss: Tensor
    seconds: float


class Member:
    """A run whose steps are trained elsewhere.

    Args:
        trainer: at the start of its training.
        train: called with this object between two batches, when the run needs its next steps. It
            sets ``trained``, to None if the run shall train by itself from now on.
        number: orders the members of a stack.
        row: of the stack.
        num_rows: of the stack; 0: neither is known.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        train: Callable[["Member"], None],
        number: int = 0,
        row: int = 0,
        num_rows: int = 0,
    ) -> None:
        self.trainer = trainer
        self.train = train
        self.number, self.row, self.num_rows = number, row, num_rows
        self.task: RetrievalTask = trainer.lightning_module  # type: ignore[assignment]
        self.data: RetrievalDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self.loader: TrainLoader = trainer.train_dataloader  # type: ignore[assignment]
        self.optimizer: Optimizer = trainer.optimizers[0]
        self.trained: Trained | None = None
        self._own_step = self.task.step

    def join(self) -> None:
        """Train elsewhere from now on."""
        self.loader.train_ahead = self._train_ahead
        self.task.step = lambda batch: self._last.output
        self.task.trains_elsewhere = self.data.trains_elsewhere = True
        # of this object alone: Lightning then neither computes gradients nor steps
        self.task.backward = lambda *args, **settings: None  # type: ignore[method-assign]
        self.task.optimizer_step = _only_log  # type: ignore[method-assign,assignment]

    def leave(self) -> None:
        """Train in Lightning's loop from now on."""
        self.loader.train_ahead = None
        self.task.step = self._own_step
        self.task.trains_elsewhere = self.data.trains_elsewhere = False
        del self.task.backward, self.task.optimizer_step

    @property
    def place(self) -> tuple[int, int]:
        """Epoch and batch of the next step."""
        return self.loader.epoch, self.loader.next_batch

    @property
    def _last(self) -> Trained:
        assert self.trained is not None
        return self.trained

    def num_steps(self) -> int:
        """Steps up to and with the next one that Lightning has to see."""
        trainer: Any = self.trainer
        done, step = trainer.fit_loop.epoch_loop.batch_progress.current.ready, trainer.global_step
        is_timed = trainer.val_check_batch is None or trainer.check_val_every_n_epoch is None
        if trainer.should_stop or is_timed or any(map(_sees_every_step, trainer.callbacks)):
            return 1
        rhythms = [(trainer.log_every_n_steps, step), (trainer.val_check_batch, done)]
        rhythms += [(_every_n_steps(callback), step) for callback in trainer.callbacks]
        left = [every - now % every for every, now in rhythms if 0 < every < math.inf]
        if trainer.max_steps >= 0:
            left.append(trainer.max_steps - step)
        return max(1, int(min(MOST, trainer.num_training_batches - done, *left)))

    def after_step(self) -> None:
        """Do what Lightning does after a step that it does not see: learning rate and average."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Average):
                callback.after_step(self.task)
        progress = self.trainer.fit_loop.epoch_loop.scheduler_progress
        for each in self.trainer.lr_scheduler_configs:
            progress.increment_ready()
            each.scheduler.step()  # type: ignore[call-arg]  # of steps, not of a metric
            progress.increment_completed()

    def _train_ahead(self) -> int:
        """Train a stretch; see :attr:`TrainLoader.train_ahead`."""
        self.train(self)
        if self.trained is None:
            self.leave()
            return 1
        self.task.mean_loss = self.trained.mean_loss
        self.task.seconds_elsewhere += self.trained.seconds
        _count(self.trainer, self.trained.num - 1)  # Lightning counts the last one
        return self.trained.num


def _only_log(
    epoch: int, batch_idx: int, optimizer: Any, closure: Callable[[], object], **settings: Any
) -> None:
    """In place of ``optimizer_step``: the closure calls ``training_step``."""
    closure()


def _count(trainer: pl.Trainer, num: int) -> None:
    """Advance the counters of Lightning's loops by steps that it does not see."""
    loop = trainer.fit_loop.epoch_loop
    optimizer = loop.automatic_optimization.optim_progress.optimizer
    for progress in (loop.batch_progress, optimizer.step, optimizer.zero_grad):
        for counters in (progress.total, progress.current):
            for name in ("ready", "started", "processed", "completed"):
                if hasattr(counters, name):
                    setattr(counters, name, getattr(counters, name) + num)
    loop._batches_that_stepped += num
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    fetcher.fetched += num


def _every_n_steps(callback: Any) -> int:
    """How many steps pass between two steps that a callback has to see; 0: it needs none."""
    if isinstance(callback, ModelCheckpoint):
        return callback._every_n_train_steps
    return getattr(callback, "every_n_steps", 0)


def _sees_every_step(callback: Callback) -> bool:
    """Has a callback to be called after each step? Ours have ``takes_stretches`` if not."""
    if isinstance(callback, ModelCheckpoint):
        return callback._train_time_interval is not None
    hooks = ("on_train_batch_start", "on_train_batch_end")
    return _has(callback, hooks) and not getattr(callback, "takes_stretches", False)


def needs_gradients(callback: Callback) -> bool:
    """Does a callback work between backward pass and optimizer step, which nothing does here?"""
    return _has(callback, GRADIENT_HOOKS)


def _has(callback: Callback, hooks: tuple[str, ...]) -> bool:
    # Not of its class: Lightning's LambdaCallback has functions of the object.
    own = [getattr(getattr(callback, hook), "__func__", None) for hook in hooks]
    return any(one is not getattr(Callback, hook) for one, hook in zip(own, hooks, strict=True))
