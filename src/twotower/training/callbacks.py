"""Callbacks of every run."""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from twotower.distributed.sharding import shard_of
from twotower.errors import UserError, check_choice, check_number
from twotower.training.checkpoint_io import remove_partial_checkpoints


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` fresh: every ``every_n_steps`` steps and after each epoch.

    A killed run goes on from it as if nothing had happened, because it is written between two
    batches alone: no gradients are under way, and what the last step led to (its row in the log, a
    validation) is done.

    Args:
        dirpath: folder of the file.
        every_n_steps: how much work a crash may cost, in optimizer steps.
    """

    def __init__(self, dirpath: str, every_n_steps: int) -> None:
        check_number("callbacks.last.every_n_steps", every_n_steps, 1)
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.step = 0  # the last one seen

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what a killed run left."""
        if trainer.is_global_zero:
            remove_partial_checkpoints(self.path.parent)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Know the step that a resumed run begins with."""
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Save every so many steps, when the next batch is asked for.

        With ``trainer.accumulate_grad_batches`` most batches make no step: their gradients would be
        missing in the checkpoint. An epoch's last step is left to the save after its validation.
        """
        stepped = trainer.global_step > self.step
        self.step = trainer.global_step
        if stepped and self.step % self.every_n_steps == 0 and not is_last_batch(trainer):
            self.save_before_next_batch(trainer)

    def save_before_next_batch(self, trainer: pl.Trainer) -> None:
        """Save when all that belongs to the current batch is done."""
        loader: Any = trainer.train_dataloader
        loader.before_next = partial(self.save, trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save with the epoch's validation done."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save now; the rows that were logged before are on the disk by then."""
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.path)


def is_last_batch(trainer: pl.Trainer) -> bool:
    """Is the current batch its epoch's last one?"""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, but it remembers that it has stopped.

    A run that is killed between its last epoch and its test trains no other one. ``patience`` is
    that of the command in hand, not the checkpoint's.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting; a patience that was raised since ends the stop."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        exhausted = self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED
        if exhausted and self.wait_count < self.patience:
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The state is the checkpoint's by now."""
        stopped = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED
        trainer.should_stop = trainer.should_stop or stopped


class Speed(Callback):
    """What the same mathematics may run on.

    Args:
        compile: fuse model and loss into kernels of their own (``torch.compile``); random draws stay those of the uncompiled
            step, but for a transformer's dropout on a CPU. It takes half a minute or more, and on a CPU a C++ compiler.
        cuda_graphs: record the compiled step's kernels once and replay them, so that a GPU waits for no Python. All batches
            then have one shape, with item rows that are padding, and no step waits for the GPU to count items.
        float32_matmul: ``highest``, or ``high`` or ``medium``: a GPU may then multiply in TF32 or bfloat16
            (``torch.set_float32_matmul_precision``).

    Raises:
        UserError: for an unknown precision, without a compiler, and for CUDA graphs that are not compiled.
    """

    def __init__(self, compile: bool, cuda_graphs: bool, float32_matmul: str) -> None:
        check_choice(
            "callbacks.speed.float32_matmul", float32_matmul, ("highest", "high", "medium")
        )
        if cuda_graphs and not compile:
            raise UserError(
                "callbacks.speed.cuda_graphs=true records the compiled step: set callbacks.speed.compile=true too"
            )
        self.compile = compile
        self.cuda_graphs = cuda_graphs
        self.float32_matmul = float32_matmul

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first step.

        Raises:
            UserError: for what can be neither compiled nor recorded.
        """
        torch.set_float32_matmul_precision(self.float32_matmul)
        if not self.compile:
            return
        for parameter in pl_module.parameters():
            if getattr(parameter, "row_sparse", False) or shard_of(parameter) is not None:
                raise UserError(
                    "callbacks.speed.compile=true knows no row-sparse and no sharded tables: set optimizer=adamw and "
                    "model.sharding=none, or it to false"
                )
        if self.cuda_graphs:
            if pl_module.device.type != "cuda" or trainer.world_size > 1:
                raise UserError(
                    f"callbacks.speed.cuda_graphs=true is for one process with an NVIDIA GPU, here are {trainer.world_size} on "
                    f"{pl_module.device.type}: set it to false"
                )
            trainer.datamodule.fixed_shapes = True  # type: ignore[attr-defined]
        pl_module.step = compiled(pl_module.step, self.cuda_graphs)  # type: ignore[assignment,arg-type]


def compiled(step: Callable[..., Any], cuda_graphs: bool = False) -> Callable[..., Any]:
    """``torch.compile`` with the random draws of the uncompiled step, for batches of any shape.

    Args:
        step: model and loss.
        cuda_graphs: record it for each shape, of which there should be few.

    Raises:
        UserError: where there is no C++ compiler.
    """
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if not torch.cuda.is_available() and not any(map(shutil.which, compilers)):
        raise UserError(
            f"callbacks.speed.compile=true needs a C++ compiler ({' or '.join(compilers)}): install one, or set it to false"
        )
    options: dict[str, str | int | bool | Callable[..., Any]] = {
        "fallback_random": True,
        "triton.cudagraphs": cuda_graphs,
    }
    return torch.compile(step, dynamic=not cuda_graphs, options=options)


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
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
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

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Stop the stretch."""
        self.last = None

    def examples_per_second(self) -> float | None:
        """Positives per second, None if nothing was trained."""
        return self.positives / self.seconds if self.seconds else None
