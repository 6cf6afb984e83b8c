"""Number of torch's threads: one for small training steps, all available cores for the rest."""

import os
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from twotower.processes import available_cores

# multiply-adds of a step's forward pass; for fewer, a second thread brings little on idle cores,
# and beside another busy process every barrier of two threads costs time
MUCH_WORK = 200_000_000


class StepThreads(Callback):
    """Trains small steps with one thread, and validates with all cores.

    Does nothing where ``OMP_NUM_THREADS`` is set: by the user, by a launcher for its jobs, or by
    Lightning for the processes of ``trainer.devices``.
    """

    def __init__(self) -> None:
        self._in_steps = 0  # 0: no training is going on

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Set the number of the first step."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        work = data.batch_size * _weights(pl_module.model, data.options.history_length)
        self._in_steps = 1 if work < MUCH_WORK else available_cores()
        _set(self._in_steps)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank with all cores."""
        _set(available_cores())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Return to the number of a step; before the training there is none."""
        if self._in_steps:  # Lightning's trainer.training is False until this hook has run
            _set(self._in_steps)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Test with all cores."""
        self._in_steps = 0
        _set(available_cores())


def _weights(model: nn.Module, history_length: int) -> int:
    """Weights that a positive is multiplied with; a history encoder's once per history item."""
    count = 0
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.GRU)):
            times = history_length if ".encoder." in name else 1
            count += times * sum(weight.numel() for weight in module.parameters())
    return count


def _set(threads: int) -> None:
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
