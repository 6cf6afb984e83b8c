"""Ends a training after SIGTERM or Ctrl-C: between two steps, with its state saved."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback, Checkpoint

from twotower import processes, signals
from twotower.training.callbacks import LastCheckpoint, is_last_batch
from twotower.wording import resume_command


class Stopping(Checkpoint):
    """Ends the training after a signal: saves ``last.ckpt`` at the next step or the epoch's end.

    Several processes agree before each step, so that all of them stop after the same one. Lightning
    calls checkpoint callbacks last, so the saved state holds that of all other callbacks.

    Args:
        last: saves the state.
    """

    takes_stretches = True  # see training.fused.whole_steps

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last
        self.agreed: int | None = None  # the signal, once all processes have it

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals wait for the next step from here on."""
        signals.defer(lambda signum: None)
        # Lightning's own agreement at each step ends with exit code 0 and saves nothing
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Agree whether to stop after this step."""
        self._agree(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save and end when the next batch is requested, after the log of this step."""
        has_stepped = not trainer.fit_loop.epoch_loop._should_accumulate()
        if self.agreed and has_stepped and not is_last_batch(trainer):
            loader: Any = trainer.train_dataloader
            loader.before_next = partial(self._save_and_end, trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End after the epoch, which has just been saved."""
        self._agree(trainer)
        if self.agreed:
            raise signals.Stopped(self.agreed)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals end the process at once again: all is saved.

        Raises:
            Stopped: for a signal that came after the last epoch.
        """
        signals.defer(None)
        signals.raise_if_asked()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Let signals end a failing run at once."""
        signals.defer(None)

    def _save_and_end(self, trainer: pl.Trainer) -> None:
        self.last.save(trainer)
        raise signals.Stopped(self.agreed or 0)

    def _agree(self, trainer: pl.Trainer) -> None:
        self.agreed = signals.asked()
        if trainer.world_size > 1:
            flag = torch.tensor(self.agreed or 0, device=trainer.strategy.root_device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            self.agreed = int(flag) or None


def prepare_to_stop(
    trainer: pl.Trainer, last_checkpoint: Path | None = None, again: Sequence[str] = ()
) -> None:
    """Make signals end the work of ``trainer`` and the processes that it starts.

    Args:
        trainer: before its first use.
        last_checkpoint: of a training; None for work that cannot be resumed.
        again: overrides that the resuming command has to repeat.
    """
    # Lightning's handler communicates with other processes at any moment; SLURM's requeueing stays
    trainer._signal_connector._sigterm_notifier_fn = lambda *args: None  # type: ignore[method-assign]
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    last = [callback for callback in callbacks if isinstance(callback, LastCheckpoint)]
    callbacks.extend(map(Stopping, last))
    launcher = trainer.strategy.launcher
    if launcher is not None:
        signals.on_stop(
            action=lambda: processes.end(process.pid for process in getattr(launcher, "procs", []))
        )
    if last_checkpoint is not None:
        signals.on_stop(hint=lambda: _how_to_resume(last_checkpoint, again))


def _how_to_resume(last: Path, again: Sequence[str] = ()) -> str:
    if not last.exists():
        return "nothing was saved yet: start it again"
    return f"continue with: {resume_command(last, again)}"
