"""How a training ends when a signal asks for it: between two steps, with its state saved."""

import re
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint

from twotower import processes, signals
from twotower.training.callbacks import LastCheckpoint, is_last_batch


class Stopping(Checkpoint):
    """Ends the training after a signal: saves ``last.ckpt`` at the next step, or lets the epoch end and be saved.

    Several processes agree before a step, so that all of them stop after the same one. As a checkpoint, this comes after all
    other callbacks, so the state that it saves holds theirs.

    Args:
        last: saves the state.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last
        self.agreed: int | None = None  # the signal, once all processes know of it

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a signal waits for the next step."""
        signals.defer(lambda signum: None)
        # Lightning's own agreement, of each step too, ends with exit code 0 and saves nothing
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Agree on stopping after this step."""
        self._agree(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save and end when the next batch is asked for, with all that belongs to this step done."""
        has_stepped = not trainer.fit_loop.epoch_loop._should_accumulate()
        if self.agreed and has_stepped and not is_last_batch(trainer):
            loader: Any = trainer.train_dataloader
            loader.before_next = partial(self._save_and_end, trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End with the epoch, which has just been saved."""
        self._agree(trainer)
        if self.agreed:
            raise signals.Stopped(self.agreed)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All is saved: from here on a signal ends at once.

        Raises:
            Stopped: for one that came after the last epoch.
        """
        signals.defer(None)
        signals.raise_if_asked()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """A run that fails waits for no step any more."""
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
    """Make signals end what ``trainer`` does, with the processes that it starts.

    Args:
        trainer: before its first use.
        last_checkpoint: of a training, None for what cannot be gone on with.
        again: overrides that a command has to repeat to go on.
    """
    # Lightning's handler would talk to the other processes at any moment; the one for SLURM's requeueing stays
    trainer._signal_connector._sigterm_notifier_fn = lambda *args: None  # type: ignore[method-assign]
    last = [callback for callback in trainer.callbacks if isinstance(callback, LastCheckpoint)]  # type: ignore[attr-defined]
    if last:
        trainer.callbacks.append(Stopping(last[0]))  # type: ignore[attr-defined]
    launcher = trainer.strategy.launcher
    if launcher is not None:
        signals.on_stop(
            action=lambda: processes.end(process.pid for process in getattr(launcher, "procs", []))
        )
    if last_checkpoint is not None:
        signals.on_stop(hint=lambda: _how_to_go_on(last_checkpoint, again))


def _how_to_go_on(last: Path, again: Sequence[str] = ()) -> str:
    if not last.exists():
        return "nothing was saved yet"
    shown = str(last.relative_to(Path.cwd()) if last.is_relative_to(Path.cwd()) else last)
    return " ".join(["go on with: python src/train.py", _argument(shown), *map(shlex.quote, again)])


def _argument(path: str) -> str:
    if re.fullmatch(r"[\w./+-]+", path, re.ASCII):
        return f"ckpt_path={path}"
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    argument = f"ckpt_path='{escaped}'"  # quoted for Hydra, which would read signs of its own
    return shlex.quote(argument) if re.search(r'["$`\\!]', argument) else f'"{argument}"'
