"""Callbacks of every run."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from twotower.types import check_number


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` fresh: every ``every_n_steps`` steps and after each epoch.

    A killed run goes on from it as if nothing had happened. An epoch's last step is left to the save after its validation.

    Args:
        dirpath: folder of the file.
        every_n_steps: how much work a crash may cost.
    """

    def __init__(self, dirpath: str, every_n_steps: int) -> None:
        check_number("callbacks.last.every_n_steps", every_n_steps, 1)
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save every so many steps."""
        if trainer.global_step % self.every_n_steps == 0 and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save with the epoch's validation done."""
        trainer.save_checkpoint(self.path)


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, but it remembers that it has stopped: a run killed between its last epoch and its test trains no other one."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The state is the checkpoint's by now."""
        trainer.should_stop = trainer.should_stop or self.stopping_reason != EarlyStoppingReason.NOT_STOPPED


class Throughput(Callback):
    """Counts positives per second of training, over whole steps with feeding; validation and saving do not count."""

    def __init__(self) -> None:
        self.positives = 0
        self.seconds = 0.0
        self.last: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start a stretch; the first step after it is not counted (warm-up)."""
        self.last = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count one step, queued work included."""
        now = time.perf_counter()
        if self.last is not None:
            self.positives += len(batch.positive) * trainer.world_size
            self.seconds += now - self.last
        self.last = now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the stretch."""
        self.last = None

    def examples_per_second(self) -> float | None:
        """Positives per second, None if nothing was trained."""
        return self.positives / self.seconds if self.seconds else None
