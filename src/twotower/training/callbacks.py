"""Callbacks of every run: checkpoints, early stopping, compilation, throughput."""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from twotower.distributed.sharding import shard_of
from twotower.errors import UserError, check_choice, check_number
from twotower.training.checkpoint_io import remove_partial_checkpoints
from twotower.training.fused import lockstep
from twotower.training.fused.recorded import record_steps
from twotower.training.loggers.csv_logger import RunCSVLogger


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` every ``every_n_steps`` steps and after each epoch.

    A killed run resumes from it exactly, because it is written only between two batches: no
    gradients are pending, and the row in the log and the validation of the last step are done.

    Args:
        dirpath: folder of the file.
        every_n_steps: optimizer steps that a crash may cost.
    """

    takes_stretches = True  # see training.fused.whole_steps

    def __init__(self, dirpath: str, every_n_steps: int) -> None:
        check_number("callbacks.last.every_n_steps", every_n_steps, 1)
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.step = 0  # the last finished one

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove partial files of a killed run."""
        if trainer.is_global_zero:
            remove_partial_checkpoints(self.path.parent)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the step of a resumed run."""
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Save every ``every_n_steps`` steps, when the next batch is requested.

        With ``trainer.accumulate_grad_batches`` most batches make no step; a checkpoint after one
        of them would lack its gradients. An epoch's last step is saved after its validation.
        """
        stepped = trainer.global_step > self.step
        self.step = trainer.global_step
        if stepped and self.step % self.every_n_steps == 0 and not is_last_batch(trainer):
            loader: Any = trainer.train_dataloader
            loader.before_next = partial(self.save, trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the epoch's validation."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save now, after all rows of the log are written to the disk."""
        for logger in trainer.loggers:
            logger.sync() if isinstance(logger, RunCSVLogger) else logger.save()
        trainer.save_checkpoint(self.path)


def is_last_batch(trainer: pl.Trainer) -> bool:
    """Is the current batch the last one of its epoch?"""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, which a resumed run does not forget.

    A run that is killed between its last epoch and its test trains no further epoch. ``patience``
    is that of the current command, not of the checkpoint.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting; a raised patience cancels the stop."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        exhausted = self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED
        if exhausted and self.wait_count < self.patience:
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a resumed run that had stopped before."""
        stopped = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED
        trainer.should_stop = trainer.should_stop or stopped


class Speed(Callback):
    """Recording or compilation of the training step, and the precision of matrix products.

    Args:
        record: replay whole steps from a recording (a CUDA graph), so that a GPU does not wait for
            Python. ``auto``: on one NVIDIA GPU where the training allows it and the first steps
            agree with plain ones. True: refuse to train otherwise.
        compile: fuse model and loss into kernels of their own (``torch.compile``); such a step is
            not recorded. Random draws stay those of the uncompiled step, except for a
            transformer's dropout on a CPU. It takes half a minute or more, and on a CPU a C++
            compiler.
        float32_matmul: ``highest``, or ``high`` or ``medium``: a GPU may then multiply in TF32 or
            bfloat16 (``torch.set_float32_matmul_precision``).

    Raises:
        UserError: for unknown values.
    """

    def __init__(self, record: bool | Literal["auto"], compile: bool, float32_matmul: str) -> None:
        check_choice(
            "callbacks.speed.float32_matmul", float32_matmul, ("highest", "high", "medium")
        )
        if record not in (True, False, "auto"):
            raise UserError(f"callbacks.speed.record must be auto, true or false, got {record!r}")
        self.record = record
        self.compile = compile
        self.float32_matmul = float32_matmul

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the task's step by a compiled one.

        Raises:
            UserError: for tables and machines that compilation does not support.
        """
        torch.set_float32_matmul_precision(self.float32_matmul)
        if not self.compile:
            return
        for parameter in pl_module.parameters():
            if getattr(parameter, "row_sparse", False) or shard_of(parameter) is not None:
                raise UserError(
                    "callbacks.speed.compile=true does not work with row-sparse or sharded tables: "
                    "set optimizer=adamw and model.sharding=none, or set it to false"
                )
        pl_module.step = compiled(pl_module.step)  # type: ignore[assignment,arg-type]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the steps, unless they are taken together with those of other runs.

        Raises:
            UserError: with ``record=True``, for what cannot be recorded.
        """
        if lockstep.current() is None:
            record_steps(trainer, self.record)


def compiled(step: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile`` with the random draws of the uncompiled step, for batches of any shape.

    Raises:
        UserError: without a C++ compiler.
    """
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if not torch.cuda.is_available() and not any(map(shutil.which, compilers)):
        raise UserError(
            f"callbacks.speed.compile=true needs a C++ compiler ({' or '.join(compilers)}): "
            "install one, or set it to false"
        )
    return torch.compile(step, dynamic=True, options={"fallback_random": True})


class Throughput(Callback):
    """Measures positives per second of training.

    Whole steps with their loading count; validation and saving do not. The steps of a pass count
    with the time that they take for all of its runs.
    """

    takes_stretches = True  # see training.fused.whole_steps

    def __init__(self) -> None:
        self.positives = 0
        self.seconds = 0.0
        self.last: float | None = None  # end of the last step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock at the end of the epoch's first step (warm-up)."""
        self.last = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Count the steps since the last call with their loading."""
        loader: Any = trainer.train_dataloader
        if pl_module.trains_elsewhere:  # between two calls other runs may validate
            self.positives += loader.num_positives_passed
            self.seconds = pl_module.seconds_elsewhere
            return
        now = time.perf_counter()
        if self.last is not None:
            self.positives += loader.num_positives_passed
            self.seconds += now - self.last
        self.last = now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock until the end of the next step."""
        self.last = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Stop the clock until the end of the next step."""
        self.last = None

    def examples_per_second(self) -> float | None:
        """Positives per second; None if nothing was trained."""
        return self.positives / self.seconds if self.seconds else None
