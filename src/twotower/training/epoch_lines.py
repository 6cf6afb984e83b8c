"""A line for each epoch, and why the training stopped."""

import math
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Timer
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor

from twotower.training.callbacks import EarlyStopping
from twotower.training.progress import epoch_name, monitor_of, short_name
from twotower.wording import duration, number

LINE_EVERY_S = 600.0  # at least, also within an epoch


class EpochLines(Callback):
    """Prints a line for each epoch, and why the training stopped; in a file, too.

    An epoch that takes longer than ten minutes has a line every ten minutes.
    """

    takes_stretches = True  # see training.fused.whole_steps

    def __init__(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self._value: float | None = None  # of the epoch's last validation
        self._loss: Tensor | None = None  # sum over the steps of the epoch
        self._num_steps = 0
        self._epoch_began = self._began = self._last_line = 0.0  # moments
        self._first_step = 0  # that this process trains

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far, for a resumed run."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best epoch of the checkpoint."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a run that is resumed within an epoch does not start that epoch."""
        self._began, self._first_step = time.perf_counter(), trainer.global_step
        self._start_epoch()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock and its loss."""
        self._start_epoch()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any
    ) -> None:
        """Sum the loss where it is, without waiting for the device."""
        loader: Any = trainer.train_dataloader
        loss = outputs["loss"].detach() * loader.num_passed
        self._loss = loss if self._loss is None else self._loss + loss
        self._num_steps += loader.num_passed
        if time.perf_counter() > self._last_line + LINE_EVERY_S:
            done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            total = trainer.num_training_batches
            of = f" of {total:,}" if math.isfinite(total) else ""
            self._print(trainer, f"{epoch_name(trainer)}: step {done:,}{of}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the metric that chooses the checkpoint."""
        value = trainer.callback_metrics.get(monitor_of(trainer))
        if value is None or trainer.sanity_checking:
            return
        self._value = value.item()
        is_max = getattr(trainer.checkpoint_callback, "mode", "max") == "max"
        if self.best is None or (self._value > self.best if is_max else self._value < self.best):
            self.best, self.best_epoch = self._value, trainer.current_epoch + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch: loss, validation, best so far, seconds, remaining time."""
        if self._loss is not None:
            self._print(trainer, epoch_name(trainer), time.perf_counter() - self._epoch_began)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print why the training stopped, and which epoch is tested."""
        if not trainer.is_global_zero:
            return
        tested = "no validation chooses an epoch: the last is tested"
        if self.best is not None:
            tested = f"best {number(self.best)} at epoch {self.best_epoch}"
        print(f"training ends: {_why(trainer)}; {tested}", flush=True)

    def _start_epoch(self) -> None:
        self._epoch_began = self._last_line = time.perf_counter()
        self._loss, self._num_steps, self._value = None, 0, None

    def _print(self, trainer: pl.Trainer, where: str, seconds: float | None = None) -> None:
        """A line of at most 80 columns with the usual metric and up to 100 epochs."""
        self._last_line = time.perf_counter()
        if not trainer.is_global_zero or self._loss is None:
            return
        parts = [where, f"loss {self._loss.item() / self._num_steps:#.4g}"]
        best = f"best {number(self.best)} at {self.best_epoch}" if self.best is not None else ""
        if self._value is not None:
            is_best = self.best_epoch == trainer.current_epoch + 1 and self._value == self.best
            value = f"{short_name(monitor_of(trainer))} {number(self._value)}"
            parts.append(f"{value} ({'best' if is_best else best})")
        elif best:
            parts.append(best)
        if seconds is not None:
            parts.append(duration(seconds))
        left = self._seconds_left(trainer)
        if 0 < left < math.inf and not trainer.should_stop:
            parts.append(f"~{duration(left)} left")
        print("  ".join(parts), flush=True)

    def _seconds_left(self, trainer: pl.Trainer) -> float:
        """Time for the steps that are left, at the pace of this process with its validations."""
        done = trainer.global_step - self._first_step
        steps = trainer.estimated_stepping_batches - trainer.global_step
        left = (time.perf_counter() - self._began) / done * steps if done else math.inf
        timers = [each for each in trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
        return min([left, *(timer.time_remaining() or 0.0 for timer in timers)])


def _why(trainer: pl.Trainer) -> str:
    """Why a training stopped."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0.0) <= 0:
            return "trainer.max_time is reached"
        stops = isinstance(callback, EarlyStopping)
        if stops and callback.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
            direction = "risen" if callback.mode == "max" else "fallen"
            times = f"{callback.patience} validation{'s' * (callback.patience != 1)}"
            return f"{short_name(callback.monitor)} has not {direction} for {times}"
        if stops and callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            return callback.stopping_reason_message or "callbacks.early_stopping"
    if -1 < trainer.max_steps <= trainer.global_step:
        return f"trainer.max_steps={trainer.max_steps} is reached"
    if trainer.should_stop:
        return "a callback has stopped it"
    return f"trainer.max_epochs={trainer.max_epochs} is reached"
